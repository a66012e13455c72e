"""The study's figures: every one with its PDF and its data, and what a run must have kept."""

import csv
import json
from pathlib import Path

import pytest

from nemesis.commands import low_norm
from nemesis.low_norm import training
from tests.helpers.runs import SHORT, command, finish

FEW = ("TEST.SPLIT", "val", "DATASET.SUBSAMPLE_CLASSES", "base", "TRAINER.NEMESIS.BETA", "0.0")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """CoOp and PAN with a checkpoint after each of three epochs."""
    folder = tmp_path_factory.mktemp("course")
    for trainer in ("CoOp", "CoOpNemesis"):
        kept = (*SHORT, *FEW, "TRAIN.CHECKPOINT_FREQ", "1")
        finish(command(folder / trainer, data_root, *kept, trainer=trainer))
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    """The data beside a figure, which must be there as PNG and PDF."""
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    with path.with_suffix(".csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_figures_of_a_study(runs: Path, tmp_path: Path) -> None:
    few = ("--replace", "0.1", "--rescale", "0.1", "2")
    assert low_norm.main([str(runs), *few, "--output", str(tmp_path)]) == 0
    frequency = rows(tmp_path / "figure_1b.png")
    assert [(row["method"], row["of"]) for row in frequency] == [("CoOp", "16"), ("CoOp+PAN", "16")]
    with (tmp_path / "low_norm_rescale.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["low-norm"] for row in table] == [row["frequency"] for row in frequency]
    study = json.loads((runs / "CoOp" / "corruption.json").read_text())
    bars = rows(tmp_path / "figure_a1_rescale_CoOp_EmojiActivities_1shots.png")
    assert len(bars) == 32
    assert {float(row["learned_accuracy"]) for row in bars} == {study["original"]["accuracy"]}
    better = [row for row in bars if row["value"] == "0.1"]
    count = sum(float(row["accuracy"]) > float(row["learned_accuracy"]) for row in better)
    assert str(count) == frequency[0]["frequency"]


def test_figures_of_a_training(runs: Path, tmp_path: Path) -> None:
    both = [str(runs / "CoOp"), str(runs / "CoOpNemesis")]
    assert training.main([*both, "--rescale", "0.5", "--output", str(tmp_path)]) == 0
    points = rows(tmp_path / "figure_3.png")
    assert len(points) == 2 * 3 * 16
    few = ["--figures", "3", "--rescale", "0.1", "--every", "3", "--output", str(tmp_path)]
    assert training.main([both[0], *few]) == 0
    assert {row["factor"] for row in rows(tmp_path / "figure_3.png")} == {"", "0.1"}
    history = [json.loads(x) for x in (runs / "CoOp" / "history.jsonl").read_text().splitlines()]
    first = next(line for line in history if line["event"] == "train")
    assert float(points[0]["mean_norm"]) == pytest.approx(sum(first["position_norms"]) / 16)
    coop = rows(tmp_path / "figure_a2_CoOp_EmojiActivities_1shots_seed1.png")
    assert [row["epoch"] for row in coop] == ["1", "2", "3"] and "selections_0" not in coop[0]
    last = next(line for line in reversed(history) if line["event"] == "test")
    assert float(coop[-1]["accuracy"]) == last["accuracy"]
    pan = rows(tmp_path / "figure_a2_CoOp_PAN_EmojiActivities_1shots_seed1.png")
    assert "selections_15" in pan[0]


def test_only_some_epochs(runs: Path, tmp_path: Path) -> None:
    arguments = ["--every", "2", "--rescale", "--output", str(tmp_path)]
    assert training.main([str(runs / "CoOp"), *arguments]) == 0
    (path,) = tmp_path.glob("figure_a2*.png")
    assert [bool(row["accuracy"]) for row in rows(path)] == [False, True, True]


def test_mistakes(
    runs: Path, tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    once = tmp_path / "once"
    finish(command(once, data_root, *SHORT, *FEW))
    capsys.readouterr()
    output = ["--output", str(tmp_path / "out"), "--every", "3"]
    assert training.main([str(once), str(runs / "CoOp"), *output]) == 1
    printed = capsys.readouterr()
    assert (
        f"error: {once}: the run has 1 checkpoint(s)" in printed.err
        and "CHECKPOINT_FREQ 1" in printed.err
    )
    assert "figure_3.png" in printed.out
    assert training.main([str(once), "--every", "0"]) == 2
    assert training.main([str(once), "--rescale", "-1"]) == 2
