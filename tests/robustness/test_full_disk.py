"""A full disk ends a command in one sentence; files written before are complete."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import train
from dassl.engine import finished_run
from dassl.engine.run_record import read_history
from dassl.utils import load_checkpoint
from nemesis.commands import export, low_norm, report, sweep
from tests.helpers.report_runs import a_run, write
from tests.helpers.runs import SHORT, Capture, command, finish
from tests.helpers.small_disk import small_disk
from tests.helpers.sweeps_small import write as write_sweep

EVERY_EPOCH = ("TRAIN.CHECKPOINT_FREQ", "1")
FULL = "No space left on device"
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A run on a large disk."""
    output = tmp_path_factory.mktemp("whole") / "run"
    finish(command(output, data_root, *SHORT, *EVERY_EPOCH))
    return output


def sentence(main: Callable[[Sequence[str]], int], capsys: Capture, *arguments: object) -> str:
    """Run a command and return its one line of error."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert FULL in line
    return line


# The disk is full while config.yaml, TensorBoard, each checkpoint, the prompt or the results are
# written.
@pytest.mark.parametrize(
    "size", ["60k", *(pytest.param(s, marks=SLOW) for s in ("4k", "12k", "44k", "96k", "128k"))]
)
def test_training(size: str, whole: Path, tmp_path: Path, data_root: Path, capsys: Capture) -> None:
    with small_disk(tmp_path / "disk", size) as disk:
        output = disk / "run"
        sentence(train.main, capsys, *command(output, data_root, *SHORT, *EVERY_EPOCH))
        assert not list(output.rglob("*.tmp"))
        for checkpoint in output.rglob("model.pth.tar-*"):
            load_checkpoint(checkpoint)
        assert finished_run(output) is None
        if output.exists():  # a run that could not start has left nothing
            shutil.copytree(output, tmp_path / "roomy")
    resumed = tmp_path / "roomy"
    finish(command(resumed, data_root, *SHORT, *EVERY_EPOCH))
    prompts = [load_file(run / "prompt.safetensors")["ctx"] for run in (whole, resumed)]
    assert torch.equal(*prompts)
    epochs = [[e["loss"] for e in read_history(run) if "loss" in e] for run in (whole, resumed)]
    assert epochs[0] == epochs[1]


@pytest.mark.parametrize("size", ["64k", *(pytest.param(s, marks=SLOW) for s in ("4k", "200k"))])
def test_a_run_continues_without_the_feature_cache(
    size: str, whole: Path, tmp_path: Path, data_root: Path, capsys: Capture
) -> None:
    """Features do not fit; the run prints one line and has the same results."""
    views = (*SHORT, "INPUT.TRAIN_VIEWS", "2")
    finish(command(tmp_path / "cached", data_root, *views))
    with small_disk(tmp_path / "disk", size) as disk:
        capsys.readouterr()
        full = tmp_path / "full"
        finish(command(full, data_root, *views, "TEST.FEATURE_CACHE", str(disk / "features")))
        assert capsys.readouterr().out.count("Features cannot be cached in") == 1
        assert not list(disk.rglob("*.tmp"))
    results = [finished_run(tmp_path / name) or {} for name in ("cached", "full")]
    assert results[0]["accuracy"] == results[1]["accuracy"]


@pytest.mark.parametrize("size", ["4k", "40k", "120k"])
def test_report(size: str, tmp_path: Path, capsys: Capture) -> None:
    runs = write(tmp_path / "runs", *(a_run(50.0 + seed, seed=seed) for seed in (1, 2, 3)))
    with small_disk(tmp_path / "disk", size) as disk:
        sentence(report.main, capsys, runs, "--output-dir", disk / "report")
        assert not list(disk.rglob("*.tmp"))


@SLOW
def test_low_norm(whole: Path, tmp_path: Path, data_root: Path, capsys: Capture) -> None:
    few = ("--rescale", "0.5", "--replace", "0.1", "--root", data_root)
    with small_disk(tmp_path / "disk", "8k") as disk:
        sentence(low_norm.main, capsys, whole, *few, "--output-dir", disk / "tables")
    with small_disk(tmp_path / "disk", "152k") as disk:
        less = shutil.ignore_patterns("model*-[12]", "corruption.json")
        run = shutil.copytree(whole, disk / "run", ignore=less)
        _fill(disk)
        sentence(low_norm.main, capsys, run, *few, "--output-dir", tmp_path / "tables")
        assert finished_run(run)


def _fill(disk: Path) -> None:
    """Use all remaining space."""
    with pytest.raises(OSError, match=FULL), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_export(whole: Path, tmp_path: Path, capsys: Capture) -> None:
    with small_disk(tmp_path / "disk", "8k") as disk:
        line = sentence(export.main, capsys, whole, "-o", disk / "classifier.safetensors")
        assert "classifier.safetensors" in line
        assert not list(disk.iterdir())


@SLOW
def test_predict(whole: Path, tmp_path: Path, data_root: Path) -> None:
    """Its standard output is on the full disk."""
    images = next((data_root / "emoji_activities").rglob("*.png")).parent
    arguments = [sys.executable, "-m", "nemesis", "predict", str(whole), str(images), "--json"]
    with small_disk(tmp_path / "disk", "4k") as disk, (disk / "out.jsonl").open("wb") as out:
        done = subprocess.run(arguments, stdout=out, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and FULL in line


@SLOW
def test_sweep(tmp_path: Path, data_root: Path, capsys: Capture) -> None:
    """A run that does not fit fails, others are done."""
    with small_disk(tmp_path / "disk", "116k") as disk:
        output = str(disk / "runs")
        path = write_sweep(tmp_path, data_root, seeds=[1, 2], output=output, config="mini_ctx16")
        capsys.readouterr()
        assert sweep.main([path, "--workers", "0"]) == 1
        printed = capsys.readouterr()
        assert "1 runs done, 0 were done already, 1 failed, 0 left" in printed.out
        assert "Traceback" not in printed.err
        assert printed.err.count(FULL) >= 1
        (results,) = disk.rglob("results.json")
        assert finished_run(results.parent)
    with small_disk(tmp_path / "disk", "4k") as disk:
        _fill(disk)
        assert sweep.main([path, "--workers", "0"]) == 1
        printed = capsys.readouterr()
        assert "0 runs done, 0 were done already, 2 failed, 0 left" in printed.out
        assert FULL in printed.err and "Traceback" not in printed.err
