"""nemesis bench: both implementations compute the same; small benchmarks write their reports."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks import batch, bench, hours, measure, towers
from benchmarks.cases import CASES, ReferenceSide, RepositorySide, Setting
from benchmarks.cost import full_jobs, target_jobs
from benchmarks.cost_report import Entries, Entry, target_rows
from benchmarks.gpu_check.check import SECTIONS
from benchmarks.loading import ENCODE, make_photographs, make_workloads
from benchmarks.measure import Effort, Peak
from benchmarks.parity import METHODS, parity, relative_difference
from benchmarks.synthetic import Backbone, class_names
from clip.build import build_random
from clip.config import ARCHITECTURES
from dassl.data.images import read_image
from datasets.imagenet import CLASSNAMES, imagenet_classnames
from nemesis.sweeps.command import resolve_sweep
from nemesis.sweeps.selection import Selection

# Newer versions of Python warn when a process with threads is forked, as loaders do.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

SIZES: dict[str, dict[str, Any]] = {
    "RN50": {"vision_layers": (1, 1, 1, 1), "vision_width": 8, "vision_heads": 2},
    "ViT-B/16": {"vision_layers": 2, "vision_width": 32, "vision_heads": 2},
}
TINY = {"embed_dim": 32, "image_resolution": 64, "transformer_width": 64, "transformer_layers": 2}
TOLERANCE = 2e-5
CPU = torch.device("cpu")
SMALL = ("--backbones", "mini", "--repetitions", "1", "--threads", "1")


@pytest.fixture(scope="module", params=list(SIZES))
def setting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return tiny_setting(request.param, tmp_path_factory.mktemp("clip"), **SIZES[request.param])


def tiny_setting(name: str, folder: Path, **sizes: Any) -> Setting:
    """Five classes on a tiny CLIP none of whose weights is 0 or 1."""
    model = build_random(name, seed=3, transformer_heads=2, **(TINY | sizes))
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for key, value in model.state_dict().items():
        noise = torch.rand(value.shape, generator=generator) - 0.5
        weights[key] = value + 0.1 * noise if value.is_floating_point() else value
    path = folder / "tiny.safetensors"
    save_file(weights, path)
    return Setting(Backbone.find(str(path), text_heads=2, vision_heads=2), class_names(5), CPU)


def test_both_sides_compute_the_same(setting: Setting) -> None:
    differences = parity(setting)
    assert len(differences) == 5 * len(METHODS)
    assert not {key: value for key, value in differences.items() if value > TOLERANCE}


def test_every_case_runs_on_both_sides(setting: Setting) -> None:
    sides = ReferenceSide(setting), RepositorySide(setting)
    for case in CASES.values():
        for side in sides:
            if isinstance(side, RepositorySide) or case.reference_as is None:
                side.workload(case)()


def bench_json(folder: Path, name: str, *arguments: str) -> dict[str, Any]:
    """Run a benchmark and return its JSON."""
    assert bench.main([*arguments, "--output-dir", str(folder)]) == 0
    return json.loads((folder / f"{name}.json").read_text())


@pytest.mark.slow
def test_both_sides_of_two_towers_compute_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = SIZES["ViT-B/16"] | {"vision_layers": towers.DEPTH, "transformer_layers": towers.DEPTH}
    setting = tiny_setting("ViT-B/16", tmp_path, **sizes)
    sides = [towers.TwoTowerStep(side, setting, 2) for side in ("ours", "plain")]
    results = []
    for side in sides:
        losses = side.maple_loss(), side.promptsrc_loss()
        learned = side.text, side.vision, *side.couplings.parameters()
        results.append([*losses, *torch.autograd.grad(sum(losses, losses[0]), learned)])
    for ours, plain in zip(*results, strict=True):
        assert relative_difference(ours, plain) < TOLERANCE
    monkeypatch.setattr(towers, "peak_memory", lambda make, *_: Peak(len(str(make()())), 0))
    report = towers.measure(setting, Effort(1, 1.0, 1))
    assert [row["target"] for row in report] == [12, 12, 2.5, 3, 3]
    assert all(row["ratio"] > 0 for row in report)


@pytest.mark.slow
def test_the_cost_of_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = ("coop", "pan1")
    report = bench_json(tmp_path, "bench", *SMALL, "--classes", "5", "--cases", *cases)
    assert (tmp_path / "bench.md").read_text() in capsys.readouterr().out
    measured = {(entry["case"], entry["side"]): entry for entry in report["entries"]}
    assert set(measured) == {(case, side) for case in cases for side in ("plain", "ours")}
    for entry in measured.values():
        assert entry["seconds"] > 0 and len(entry["runs"]) == 1 and not entry["skipped"]
        assert entry["total"] > entry["above"] >= 0
    assert max(report["parity"].values()) < TOLERANCE


@pytest.mark.slow
def test_a_table_of_the_paper(tmp_path: Path) -> None:
    report = bench_json(tmp_path, "table_a9", "--table", "a9", *SMALL, "--classes", "10")
    rows = {row["whose"]: row for row in report["rows"]}
    assert rows["paper, EuroSAT"]["N=16"] == 1.8
    seconds = {entry["case"]: entry["seconds"] for entry in report["entries"][1::2]}
    assert rows["this repository, mini"]["N=4"] == seconds["pan4"] / seconds["coop"]


@pytest.mark.slow
def test_corruption(tmp_path: Path) -> None:
    found = bench_json(tmp_path, "corruption", "corruption", *SMALL, "--classes", "3")
    assert min(found[key] for key in ("plain", "ours", "command", "first_command")) > 0
    assert found["ratio"] == found["plain"] / found["ours"]
    assert (found["target"], found["difference"]) == (100, 0)


def test_the_grid_search(tmp_path: Path) -> None:
    sizes = {"images": 40, "keys": 12, "classes": 5, "width": 8, "repetitions": 1, "threads": 1}
    flags = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    found = bench_json(tmp_path, "key_search", "key-search", *flags, "--steps", "3", "2")
    assert found["seconds"] > 0 and found["keys"] == 12 and found["steps"] == [3, 2]


@pytest.mark.slow
def test_loading(tmp_path: Path) -> None:
    speeds = bench_json(tmp_path, "loading", "loading", *SMALL)["speeds"]
    assert len(speeds) == 5
    assert {speed["images"] for speed in speeds} == {"500 PNG of 64 x 64"}
    (encoding,) = (speed for speed in speeds if speed["what"] == ENCODE)
    for speed in speeds:
        assert speed["ratio"] == pytest.approx(speed["per_second"] / encoding["per_second"])


def test_photographs_are_loaded_and_encoded(tmp_path: Path) -> None:
    paths = make_photographs(tmp_path, 3)
    assert read_image(paths[2]).size == (500, 375)
    assert 30_000 < Path(paths[2]).stat().st_size < 120_000  # as photographs of this size
    with Image.open(paths[2]) as file:
        assert file.format == "JPEG"
    for workload in make_workloads(Backbone.find("mini"), CPU, paths).values():
        workload()


@pytest.mark.slow
def test_runs_in_a_worker_and_in_batches(tmp_path: Path, data_root: Path) -> None:
    root = ("--root", str(data_root))
    found = bench_json(tmp_path, "sweep", "sweep", "--runs", "2", *root)
    assert found["ratio"] == found["train_py_seconds"] / found["sweep_py_seconds"] > 0
    assert 0 < found["start_up_seconds"]["median"] <= found["start_up_seconds"]["max"]

    few = ("--epochs", "1", "--shots", "1", "--seeds", "1", "--workers", "1")
    found = bench_json(tmp_path, "batch", "batch", *few, "--k", "7", *root)
    alone, row = found["rows"]
    assert (alone["K"], alone["ratio"], row["K"]) == (1, 1, 7)
    assert row["ratio"] == pytest.approx(row["runs/min"] / alone["runs/min"])
    assert sum(found["shares"].values()) == pytest.approx(100)
    assert min(found["shares"][part] for part in batch.PARTS) > 0


@pytest.mark.slow
def test_the_gpu_check_on_a_cpu(tmp_path: Path, data_root: Path) -> None:
    flags = ("--device", "cpu", "--tiny", "--seconds", "3000", "--root", str(data_root))
    sections = bench_json(tmp_path, "gpu", "gpu", *flags)["sections"]
    assert list(sections) == list(SECTIONS)
    rows = [{"section": name, **row} for name, found in sections.items() for row in found]
    assert not [row for row in rows if "note" in row]
    differences = {row[""]: row for row in sections["parity"] if "fp32" in row[""]}
    for name, row in differences.items():
        assert max(value for value in row.values() if isinstance(value, float)) < 1e-4, name
    assert all(row["same bits"] for row in sections["determinism"])
    assert all(row["saved"] and row["difference"] == 0 for row in sections["resuming"])
    assert all(row["difference"] < 1e-5 for row in sections["batches of runs"])
    assert all(row["difference of the other"] == 0 for row in sections["runs"])
    assert sections["golden cases"][0]["exit code"] == 0


def test_a_case_that_does_not_fit_into_memory_is_skipped(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "available_memory", lambda: 2**20)
    assert "GiB are free" in measure.why_skipped(CASES["coop"], "plain", setting)
    assert measure.why_skipped(CASES["coop"], "ours", setting) == ""
    large = ARCHITECTURES["RN50"]
    assert measure.reference_memory(CASES["coop"], large, 1000) > 24 * 2**30
    assert measure.reference_memory(CASES["text_forward"], large, 1000) < 6 * 2**30


def test_a_failed_allocation_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("DefaultCPUAllocator: not enough memory")

    monkeypatch.setattr(measure, "_limit_memory", lambda free: None)
    assert "did not fit" in str(measure.peak_here(fail, CPU))


def test_a_reference_workload_of_two_cases_is_measured_once() -> None:
    jobs = [(job.case, job.side) for job in full_jobs([5], ["coop", "coop_cached"])]
    assert jobs == [("coop", "plain"), ("coop", "ours"), ("coop_cached", "ours")]
    alone = [(job.case, job.side) for job in full_jobs([5], ["coop_cached"])]
    assert alone == [("coop_cached", "plain"), ("coop_cached", "ours")]
    entries = Entries([Entry("RN50", 5, "coop", "plain", seconds=1.0)])
    assert entries.find("RN50", 5, "coop_cached", "plain") is entries.all[0]


def test_projected_hours_are_steps_times_the_time_of_a_step() -> None:
    lists: dict[str, list[Any]] = {"datasets": ["caltech101"], "seeds": [1]}
    runs = resolve_sweep(
        "table_a5", selection=Selection(lists=lists, methods=["CoOp", "CoOp+PAN"])
    ).runs
    found = hours.costs(runs)
    alone = {run.shots: one.steps for run, one in zip(runs, found, strict=True)}
    # 100 classes in batches of 32: CoOp's epochs times 3, 6, 12, 25 and 50.
    assert alone == {1: 150, 2: 600, 4: 1200, 8: 5000, 16: 10000}
    assert all(0 < one.floor < one.batched < one.alone for one in found)
    floors = {run.method: one.floor / one.steps for run, one in zip(runs, found, strict=True)}
    # PAN adds a third pass of the text encoder; both encode 32 images.
    text = 428 * 12 * 24 * 512**2 / hours.FP16
    assert floors["CoOp+PAN"] - floors["CoOp"] == pytest.approx(text, rel=0.02)


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
    entries = [
        Entry("RN50", 100, "coop", "plain", seconds=8.0, above=6 * 2**30),
        Entry("RN50", 100, "coop", "ours", seconds=2.0, above=2**30),
        Entry("RN50", 100, "coop_cached", "ours", seconds=0.25),
        Entry("RN50", 1000, "coop", "ours", total=5 * 2**30),
    ]
    rows = {row["target"]: row for row in target_rows(Entries(entries))}
    assert (rows[">= 20"]["value"], rows[">= 20"]["met"]) == (32, True)
    assert (rows[">= 10"]["value"], rows[">= 10"]["met"]) == (6, False)
    assert (rows["< 6"]["value"], rows["< 6"]["met"]) == (5, True)
    assert rows[">= 18"]["value"] is None


@pytest.mark.parametrize(
    ("arguments", "part"),
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
        (["--quick", "--targets"], "not allowed with"),
        (["--table", "a8", "--cases", "coop"], "leave out"),
        (["loading", "--cases", "coop"], "--cases"),
        (["corruption", "--backbones", "RN50", "mini"], "one backbone"),
        (["sweep", "--runs", "0"], "at least 1"),
        (["soak", "--runs", "9"], "at least 10"),
        (["batch", "--k", "0"], "at least 1"),
        (["gpu", "--device", "cpu", "--sections", "graph"], "'graph'"),
        (["gpu", "--device", "cpu", "--seconds", "0"], "above 0"),
        (["towers", "--backbones", "RN50"], "vision transformer of 9 layers"),
        (["corrupton"], "'corruption'"),
    ],
)
def test_mistakes(
    arguments: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main([*arguments, "--output-dir", str(tmp_path / "bench")]) == 2
    (message,) = capsys.readouterr().err.strip().splitlines()
    assert message.startswith("error: ") and part in message
    assert not (tmp_path / "bench").exists()


def test_imagenet_names_are_those_of_its_labels() -> None:
    lines = CLASSNAMES.read_text(encoding="utf-8").splitlines()
    ids = [line.split(" ", 1)[0] for line in lines]
    assert len(set(ids)) == 1000 and ids == sorted(ids)
    names = imagenet_classnames()
    assert (names[0], names[207], names[999]) == ("tench", "Golden Retriever", "toilet paper")
    metadata = pytest.importorskip("open_clip.zero_shot_metadata")
    assert names == list(metadata.IMAGENET_CLASSNAMES)


def test_steps_of_methods(tmp_path: Path) -> None:
    folder = str(tmp_path / "bench")
    assert bench.main(["methods", *SMALL, "--classes", "3", "--output-dir", folder]) == 0
    rows = json.loads((tmp_path / "bench/methods.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["CoOp", "KgCoOp", "ProGrad", "TCP"]
    assert rows[0]["images, x CoOp"] == rows[0]["cached features, x CoOp"] == 1
    assert all(row["cached features, s"] > 0 for row in rows)
