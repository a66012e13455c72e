"""nemesis bench: both of its sides compute the same, and a small configuration runs to the end."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from benchmarks import bench
from benchmarks.cost import measure
from benchmarks.cost.cases import CASES, ReferenceSide, RepositorySide, Setting
from benchmarks.cost.parity import METHODS, parity
from benchmarks.cost.report import target_rows
from benchmarks.cost.run import Entries, Entry, full_jobs, target_jobs
from benchmarks.cost.synthetic import Backbone, class_names
from clip.build import build_random
from clip.config import ARCHITECTURES
from datasets.imagenet import CLASSNAMES, imagenet_classnames

SIZES: dict[str, dict[str, Any]] = {
    "RN50": {"vision_layers": (1, 1, 1, 1), "vision_width": 8, "vision_heads": 2},
    "ViT-B/16": {"vision_layers": 2, "vision_width": 32, "vision_heads": 2},
}
TOLERANCE = 2e-5


@pytest.fixture(scope="module", params=list(SIZES))
def setting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """Five classes on a tiny CLIP none of whose weights is 0 or 1."""
    model = build_random(
        request.param,
        seed=3,
        embed_dim=32,
        image_resolution=64,
        transformer_width=64,
        transformer_heads=2,
        transformer_layers=2,
        **SIZES[request.param],
    )
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for key, value in model.state_dict().items():
        noise = torch.rand(value.shape, generator=generator) - 0.5
        weights[key] = value + 0.1 * noise if value.is_floating_point() else value
    path = tmp_path_factory.mktemp("clip") / "tiny.safetensors"
    save_file(weights, path)
    backbone = Backbone.find(str(path), text_heads=2, vision_heads=2)
    return Setting(backbone, class_names(5), torch.device("cpu"))


def test_both_sides_compute_the_same(setting: Setting) -> None:
    differences = parity(setting)
    assert len(differences) == 5 * len(METHODS)
    wrong = {key: value for key, value in differences.items() if value > TOLERANCE}
    assert not wrong


def test_a_small_configuration_runs_to_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--backbones", "mini", "--classes", "5", "--repetitions", "1", "--threads", "1"]
    cases = ["coop", "pan1"]
    output = tmp_path / "bench"
    assert bench.main([*given, "--cases", *cases, "--output-dir", str(output)]) == 0
    printed = capsys.readouterr().out
    report = json.loads((output / "bench.json").read_text())
    measured = {(entry["case"], entry["side"]): entry for entry in report["entries"]}
    assert set(measured) == {(case, side) for case in cases for side in ("plain", "ours")}
    for entry in measured.values():
        assert entry["seconds"] > 0 and len(entry["runs"]) == 1 and not entry["skipped"]
        assert entry["total"] > entry["above"] >= 0
    assert max(report["parity"].values()) < TOLERANCE
    assert (output / "bench.md").read_text() in printed
    for stem in ("cost_over_n_mini", "cost_over_classes_mini"):
        for suffix in (".png", ".pdf", ".csv"):
            assert (output / (stem + suffix)).stat().st_size > 0


def test_every_case_runs_on_both_sides(setting: Setting) -> None:
    sides = ReferenceSide(setting), RepositorySide(setting)
    for case in CASES.values():
        for side in sides:
            if isinstance(side, RepositorySide) or case.reference_as is None:
                side.workload(case)()


def test_what_does_not_fit_is_said_and_not_tried(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "available_memory", lambda: 2**20)
    assert "GiB are free" in measure.why_skipped(CASES["coop"], "plain", setting)
    assert measure.why_skipped(CASES["coop"], "ours", setting) == ""
    large = ARCHITECTURES["RN50"]
    assert measure.reference_memory(CASES["coop"], large, 1000) > 24 * 2**30
    assert measure.reference_memory(CASES["text_forward"], large, 1000) < 6 * 2**30


def test_an_allocation_beyond_the_free_memory_is_an_entry(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("DefaultCPUAllocator: not enough memory")

    monkeypatch.setattr(RepositorySide, "workload", lambda *_: fail)
    monkeypatch.setattr(measure, "_limit_memory", lambda free: None)
    assert "did not fit" in str(measure._peak_here("coop", "ours", setting, 1))


def test_a_reference_workload_of_two_cases_is_measured_once() -> None:
    jobs = [(job.case, job.side) for job in full_jobs([5], ["coop", "coop_cached"])]
    assert jobs == [("coop", "plain"), ("coop", "ours"), ("coop_cached", "ours")]
    alone = [(job.case, job.side) for job in full_jobs([5], ["coop_cached"])]
    assert alone == [("coop_cached", "plain"), ("coop_cached", "ours")]
    entries = Entries([Entry("RN50", 5, "coop", "plain", seconds=1.0)])
    assert entries.find("RN50", 5, "coop_cached", "plain") is entries.all[0]


def test_the_target_jobs_measure_every_target_once() -> None:
    jobs = target_jobs()
    keys = [(job.classes, job.case, job.side) for job in jobs]
    assert len(set(keys)) == len(keys)
    entries = [
        Entry("RN50", *key, seconds=job.timed or None, above=job.memory, total=job.memory)
        for key, job in zip(keys, jobs, strict=True)
    ]
    assert all(row["value"] is not None for row in target_rows(Entries(entries)))


def test_targets_are_quotients_of_entries() -> None:
    entries = Entries(
        [
            Entry("RN50", 100, "coop", "plain", seconds=8.0, above=6 * 2**30),
            Entry("RN50", 100, "coop", "ours", seconds=2.0, above=2**30),
            Entry("RN50", 100, "coop_cached", "ours", seconds=0.25),
            Entry("RN50", 1000, "coop", "ours", total=5 * 2**30),
        ]
    )
    rows = {row["target"]: row for row in target_rows(entries)}
    assert (rows[">= 20"]["value"], rows[">= 20"]["met"]) == (32, True)
    assert (rows[">= 10"]["value"], rows[">= 10"]["met"]) == (6, False)
    assert (rows["< 6"]["value"], rows["< 6"]["met"]) == (5, True)
    assert rows[">= 18"]["value"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backbones", "RN5"], "RN50"),
        (["--cases", "coopp"], "'coop'"),
        (["--classes", "0"], "from 1 to 1000"),
        (["--classes", "1001"], "from 1 to 1000"),
        (["--classes", "many"], "invalid int value"),
        (["--repetitions", "0"], "at least 1"),
        (["--threads", "0"], "at least 1"),
        (["--device", "tpu"], "accepted"),
        (["--quick", "--cases", "coop"], "leave out"),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main([*arguments, "--output-dir", str(tmp_path / "bench")]) == 2
    (message,) = capsys.readouterr().err.strip().splitlines()
    assert message.startswith("error: ") and said in message
    assert not (tmp_path / "bench").exists()


def test_imagenet_names_are_those_of_its_labels() -> None:
    lines = CLASSNAMES.read_text(encoding="utf-8").splitlines()
    ids = [line.split(" ", 1)[0] for line in lines]
    assert len(set(ids)) == 1000 and ids == sorted(ids)
    names = imagenet_classnames()
    assert (names[0], names[207], names[999]) == ("tench", "Golden Retriever", "toilet paper")
    metadata = pytest.importorskip("open_clip.zero_shot_metadata")
    assert names == list(metadata.IMAGENET_CLASSNAMES)
