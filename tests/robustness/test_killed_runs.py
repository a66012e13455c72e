"""A run that is killed or stopped at any moment ends like an uninterrupted one after resuming."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import killing
from tests.helpers.killing import assert_same, end_of, outcome, start
from tests.helpers.runs import SECONDS, command, finish, results, wait_for

PAN = (
    *("TRAINER.NEMESIS.BETA", "0.0", "TRAINER.NEMESIS.N", "2", "TRAINER.NEMESIS.TAU", "0.1"),
    *("TRAINER.NEMESIS.OMEGA", "5.0", "DATASET.SUBSAMPLE_CLASSES", "base"),
)
VIEWS = ("INPUT.TRAIN_VIEWS", "2", "DATASET.NUM_SHOTS", "2", "TEST.SPLIT", "val")
FRESH = ("DATALOADER.NUM_WORKERS", "2", "DATASET.NUM_SHOTS", "2", "TEST.SPLIT", "val")


def arguments(output: Path, data_root: Path, *options: str, resume: bool = False) -> list[str]:
    """A CoOp + PAN run, whose positions are drawn at random."""
    again = ("--resume", str(output)) if resume else ()
    return command(output, data_root, *again, *PAN, *options, trainer="CoOpNemesis")


def folders(tmp_path: Path, data_root: Path, *options: str) -> tuple[Path, Path]:
    """An uninterrupted run, and the folder of the one to be killed."""
    finish(arguments(tmp_path / "whole", data_root, *options))
    return tmp_path / "whole", tmp_path / "killed"


@pytest.mark.slow
def test_killed_at_ten_random_moments(tmp_path: Path, data_root: Path) -> None:
    """During start-up, epochs and saves: each batch is saved here."""
    options = (*VIEWS, "OPTIM.MAX_EPOCH", "40")
    whole, killed = folders(tmp_path, data_root, *options)
    rng = random.Random(1)
    kills = 0
    for early in rng.sample([True] * 2 + [False] * 8, 10):
        process = start(*arguments(killed, data_root, *options, resume=kills > 0))
        if not early:
            wait_for(killed / "resume.pth.tar", process.poll, anew=True)
        time.sleep(rng.uniform(0, 2.0) if early else rng.uniform(0, 0.3))
        kills += process.poll() is None
        process.kill()
        end_of(process)
    assert kills == 10
    assert not (killed / "results.json").exists()
    finish(arguments(killed, data_root, *options, resume=True))
    assert any(sum(e.get("selections", [])) for e in outcome(whole)["history"])
    assert_same(whole, killed)


@pytest.mark.parametrize("every", [16, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_before_every_single_operation_on_a_file(
    every: int, tmp_path: Path, data_root: Path
) -> None:
    """Before a file is opened for writing, renamed or removed: all of them in the slow variant."""
    options = ("OPTIM.MAX_EPOCH", "2", "INPUT.TRAIN_VIEWS", "1", "DATASET.NUM_SHOTS", "1")
    few = ("DATASET.SUBSAMPLE_CLASSES", "base", "DATALOADER.TRAIN_X.BATCH_SIZE", "16")
    given = command(Path("none"), data_root, *options, *few)
    place = given.index("--output-dir")
    del given[place : place + 2]
    base = tmp_path / "runs"
    done = subprocess.run(
        [sys.executable, killing.__file__, "steps", str(base), str(every), *given],
        env=killing.ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=2.5 * SECONDS,
    )
    assert done.returncode == 0, done.stderr
    killed = [folder for folder in base.iterdir() if folder.name != killing.WHOLE]
    assert len(killed) >= 60 // every
    for folder in killed:
        assert_same(base / killing.WHOLE, folder, own_processes=True)


@pytest.mark.parametrize(
    ("kind", "number", "code"),
    [
        (VIEWS, signal.SIGTERM, 143),
        pytest.param(VIEWS, signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(FRESH, signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(FRESH, signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_at_once(
    kind: tuple[str, ...], number: int, code: int, tmp_path: Path, data_root: Path
) -> None:
    """Loader processes get the signal as well, as from a terminal."""
    options = (*kind, "OPTIM.MAX_EPOCH", "5")
    whole, stopped = folders(tmp_path, data_root, *options)
    process = start(*arguments(stopped, data_root, *options), often=False)
    wait_for(stopped / "history.jsonl", process.poll)  # written empty at the start
    wait_for(stopped / "history.jsonl", process.poll, anew=True)
    os.killpg(process.pid, number)
    ended, error = end_of(process)
    (sentence,) = [line for line in error.splitlines() if "arning" not in line]
    assert ended == code, error
    assert sentence.startswith(f"stopped by {signal.Signals(number).name} after ")
    assert f"--resume {stopped}" in sentence
    assert (stopped / "resume.pth.tar").is_file()
    assert not (stopped / "prompt_learner").exists()
    finish(arguments(stopped, data_root, *options, resume=True))
    assert_same(whole, stopped)


def test_a_folder_killed_before_its_first_checkpoint(tmp_path: Path, data_root: Path) -> None:
    """Training starts again, despite a torn line of the history and half a file."""
    options = (*VIEWS, "OPTIM.MAX_EPOCH", "2")
    whole, killed = folders(tmp_path, data_root, *options)
    killed.mkdir()
    (killed / "history.jsonl").write_text('{"event": "train", "epoch": 0, "seco')
    (killed / ".results.json.x.tmp").write_text("{")
    finish(arguments(killed, data_root, *options, resume=True))
    assert_same(whole, killed)
    # Resuming the finished run does nothing.
    before = (killed / "results.json").stat().st_mtime_ns
    finish([*arguments(killed, data_root, *options, resume=True)])
    assert (killed / "results.json").stat().st_mtime_ns == before


def test_the_validation_chooses_the_same_epoch(tmp_path: Path, data_root: Path) -> None:
    """Killed between the validation of an epoch and its end."""
    options = (*VIEWS, "OPTIM.MAX_EPOCH", "2", "TEST.FINAL_MODEL", "best_val")
    whole, killed = folders(tmp_path, data_root, *options)
    process = start(*arguments(killed, data_root, *options))
    best = killed / "prompt_learner" / "model-best.pth.tar"
    wait_for(best, process.poll)
    process.kill()
    end_of(process)
    finish(arguments(killed, data_root, *options, resume=True))
    assert_same(whole, killed)


def test_a_killed_evaluation_is_repeated(tmp_path: Path, data_root: Path) -> None:
    model, tested = tmp_path / "model", tmp_path / "tested"
    finish(arguments(model, data_root, *VIEWS, "OPTIM.MAX_EPOCH", "1"))
    test = ["--eval-only", "--model-dir", str(model), *PAN[-2:]]
    finish(command(tested, data_root, *test, trainer="CoOpNemesis"))
    history = (tested / "history.jsonl").read_text()
    (tested / "results.json").unlink()
    shutil.rmtree(tested / "tensorboard", ignore_errors=True)
    finish(command(tested, data_root, *test, trainer="CoOpNemesis"))
    assert (tested / "history.jsonl").read_text() == history
    assert results(tested)["num_test"] > 0
