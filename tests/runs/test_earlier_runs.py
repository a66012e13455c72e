"""Runs that an earlier version made (2026-11-22) can be resumed, tested, predicted with, reported.

Each was trained on EmojiActivities with the bundled CLIP, 1 shot, 3 epochs, 2 cached views.
`killed` has the settings of `coop_nemesis` and was ended in its second epoch.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nemesis.commands import export, predict, report
from tests.helpers.runs import finish, results

EARLIER = Path("tests/data/runs_2026_11")
FINISHED = ("coop_nemesis", "cocoop_nemesis", "plot")
NEMESIS = (
    *("INPUT.TRAIN_VIEWS", "2", "OPTIM.MAX_EPOCH", "3", "DATALOADER.NUM_WORKERS", "0"),
    *("TRAINER.COOP.CSC", "False", "TRAINER.COOP.N_CTX", "4", "TRAINER.COOP.CTX_INIT", ""),
    *("TRAINER.NEMESIS.BETA", "0.3", "TRAINER.NEMESIS.N", "2", "DATASET.NUM_SHOTS", "1"),
)


@pytest.fixture
def runs(tmp_path: Path, data_root: Path) -> Path:
    """Copies of the folders, with the data where this machine has it."""
    folder = shutil.copytree(EARLIER, tmp_path / "runs")
    for path in folder.glob("*/config.yaml"):
        path.write_text(path.read_text().replace("ROOT: data", f"ROOT: {data_root}"))
    return folder


def arguments(trainer: str, output: Path, data_root: Path, *extra: str) -> list[str]:
    return [
        *("--trainer", trainer, "--root", str(data_root), "--output-dir", str(output)),
        *("--dataset-config-file", "configs/datasets/emoji_activities.yaml", "--seed", "1"),
        *("--config-file", f"configs/trainers/{trainer}/mini.yaml", *extra),
    ]


def test_a_killed_run_resumes_to_the_numbers_of_the_uninterrupted_one(
    runs: Path, data_root: Path
) -> None:
    finish(arguments("CoOpNemesis", runs / "killed", data_root, *NEMESIS))
    resumed = load_file(runs / "killed/prompt.safetensors")
    whole = load_file(EARLIER / "coop_nemesis/prompt.safetensors")
    assert set(resumed) == set(whole)
    for name, tensor in whole.items():
        # The machine that made it rounds in its own way.
        torch.testing.assert_close(resumed[name], tensor, atol=1e-3, rtol=1e-3)
    earlier = results(EARLIER / "coop_nemesis")
    assert results(runs / "killed")["accuracy"] == pytest.approx(earlier["accuracy"], abs=0.5)


@pytest.mark.parametrize(
    "name", ["coop_nemesis", "plot", pytest.param("cocoop_nemesis", marks=pytest.mark.slow)]
)
def test_a_prompt_is_tested_again(name: str, runs: Path, data_root: Path, tmp_path: Path) -> None:
    earlier: dict[str, Any] = results(EARLIER / name)
    settings = NEMESIS if name == "coop_nemesis" else ("DATASET.NUM_SHOTS", "1")
    if name == "plot":
        plot = ("TRAINER.PLOT.CSC", "False", "TRAINER.PLOT.N_CTX", "4", "TRAINER.PLOT.CTX_INIT", "")
        settings = (*settings, *plot)
    test = ("--eval-only", "--model-dir", str(runs / name), *settings)
    finish(arguments(earlier["trainer"], tmp_path / "test", data_root, *test))
    assert results(tmp_path / "test")["accuracy"] == pytest.approx(earlier["accuracy"], abs=0.2)


@pytest.mark.parametrize("name", FINISHED)
def test_predict_and_export_read_it(
    name: str, runs: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(arguments("ZeroshotCLIP", tmp_path / "zero", data_root))  # makes the pictures
    picture = next((data_root / "emoji_activities/images").rglob("*.png"))
    assert predict.main([str(runs / name), str(picture)]) == 0
    assert picture.name in capsys.readouterr().out
    if name == "coop_nemesis":
        assert export.main([str(runs / name), "-o", str(tmp_path / "classifier.safetensors")]) == 0
        assert load_file(tmp_path / "classifier.safetensors")


def test_report_reads_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = report.main([str(EARLIER), "--output-dir", str(tmp_path / "report"), "--seeds", "1"])
    assert code == 0, capsys.readouterr()
    page = (tmp_path / "report/report.md").read_text().replace("**", "")
    cells = [[cell.strip() for cell in line.split("|")] for line in page.splitlines()]
    rows = {row[2]: row[3] for row in cells if len(row) > 3}
    assert rows["CoOp+PUN+PAN"] == "73.5"
    assert rows["CoCoOp+PUN"] == "73.9"
    assert rows["PLOT"] == "73.4"
