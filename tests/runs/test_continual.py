"""The continual protocol on bundled images, from start to end."""

import json
import re
from pathlib import Path

import pytest
from safetensors.torch import load_file

from nemesis.commands import continual
from tests.helpers.runs import Capture, results
from trainers.core.lora import deltas_of

FLAGS = (
    *("--tasks", "2", "--shots", "1", "--set", "OPTIM.MAX_EPOCH", "1"),
    *("--set", "INPUT.TRAIN_VIEWS", "1", "--set", "DATASET.SUBSAMPLE_CLASSES", "base"),
)
ROWS = (
    "CoOp:sequential:mini_generic",
    "CLIPLoRA:merged",
    "OrthogonalLoRA:orthogonal",
)


def run(folder: Path, data_root: Path, *methods: str) -> int:
    words = ("--root", str(data_root), "--output-dir", str(folder), "--methods", *methods)
    return continual.main(["emoji_activities", *FLAGS, *words])


@pytest.mark.slow
def test_the_protocol(tmp_path: Path, data_root: Path, capsys: Capture) -> None:
    folder = tmp_path / "runs"
    assert run(folder, data_root, *ROWS) == 0
    printed = capsys.readouterr()
    found = json.loads((folder / "continual.json").read_text())
    labels = ["CoOp, sequential, mini_generic", "CLIPLoRA, merged", "OrthogonalLoRA, orthogonal"]
    assert list(found) == ["ZeroshotCLIP", *labels]
    for label in found:
        assert f"| {label} " in printed.out
        one = found[label]["1"]
        assert [len(row) for row in one["matrix"]] == [1, 2] and len(one["unseen"]) == 1
        assert one["matrix"][0][0] == one["seen"][0]
    assert {path.suffix for path in folder.glob("continual.*")} == {
        *(".md", ".csv", ".tex", ".json", ".png", ".pdf")
    }
    coop, merged, orthogonal = (
        [folder / label.replace(", ", "-") / f"seed1/task{task}" for task in (1, 2)]
        for label in labels
    )
    # The run of task 1 tests its own classes, which are those seen then.
    for first, _ in (coop, merged, orthogonal):
        label = first.parent.parent.name.replace("-", ", ")
        assert results(first)["accuracy"] == pytest.approx(found[label]["1"]["seen"][0])
    start = results(coop[1])["config"]["MODEL"]["INIT_WEIGHTS"]
    assert start.startswith(str(coop[0]))
    backbone = load_file(results(merged[1])["config"]["MODEL"]["BACKBONE"]["NAME"])
    original = load_file("clip/mini.safetensors")
    adapters = load_file(merged[0] / "adapters.safetensors")
    gamma = results(merged[0])["config"]["TRAINER"]["CLIPLORA"]["ALPHA"] / 2**0.5
    key = "transformer.resblocks.0.attn.in_proj_weight"
    change = (backbone[key].float() - original[key].float())[: backbone[key].shape[1]]
    delta = deltas_of(adapters, gamma)["text.0.q"]
    assert delta.abs().max() > 0
    assert (change - delta).abs().max() < 1e-6
    rows = [load_file(one / "adapters.safetensors")["text.0.q.A"] for one in orthogonal]
    assert (rows[0] @ rows[1].T).abs().max() < 1e-6
    # A second call repeats no run.
    times = [(one / "results.json").stat().st_mtime_ns for one in (*coop, *merged)]
    assert run(folder, data_root, *ROWS[:2]) == 0
    assert times == [(one / "results.json").stat().st_mtime_ns for one in (*coop, *merged)]


def test_too_many_tasks(tmp_path: Path, data_root: Path, capsys: Capture) -> None:
    few = ("--root", str(data_root), "--output-dir", str(tmp_path / "runs"), "--tasks", "60")
    assert continual.main(["emoji_activities", *few]) == 2
    assert "at most 42 tasks" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        (
            "CoOp",
            "CoOp, sequential: class-specific prompts serve only .* set TRAINER.COOP.CSC False",
        ),
        ("CoOp:merged:mini_generic", "it has no adapters to merge; choose the strategy sequential"),
        ("TipAdapterF", "what it learns serves only the classes of its training"),
        ("OrthogonalLoRA", "the strategy orthogonal is that of OrthogonalLoRA, and its only one"),
        ("CLIPLoRA:orthogonal", "the strategy orthogonal is that of OrthogonalLoRA"),
    ],
)
def test_refused_before_the_first_run(
    method: str, sentence: str, tmp_path: Path, data_root: Path, capsys: Capture
) -> None:
    words = ("--root", str(data_root), "--output-dir", str(tmp_path / "runs"), "--methods", method)
    assert continual.main(["emoji_activities", *words]) == 2
    assert re.search(sentence, capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()
