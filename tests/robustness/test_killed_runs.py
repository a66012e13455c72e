"""A run that was killed or stopped, at whatever moment, ends as if nothing had happened."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import killing
from tests.helpers.killing import outcome, start
from tests.helpers.runs import command, finish, results
from tests.runs.test_dassl_resume import same_state

PAN = (
    *("TRAINER.NEMESIS.BETA", "0.0", "TRAINER.NEMESIS.N", "4", "TRAINER.NEMESIS.TAU", "0.1"),
    *("TRAINER.NEMESIS.OMEGA", "5.0", "DATASET.SUBSAMPLE_CLASSES", "base"),
)
VIEWS = ("INPUT.TRAIN_VIEWS", "2", "DATASET.NUM_SHOTS", "4")
FRESH = ("DATALOADER.NUM_WORKERS", "2", "DATASET.NUM_SHOTS", "2")
SECONDS = 120.0  # in which whatever a test waits for has happened


def arguments(output: Path, data_root: Path, *options: str, resume: bool = False) -> list[str]:
    """A CoOp + PAN run, whose positions are drawn at random."""
    again = ("--resume", str(output)) if resume else ()
    return command(output, data_root, *again, *PAN, *options, trainer="CoOpNemesis")


def wait_for(process: "subprocess.Popen[str]", file: Path) -> None:
    """Until a process has written a file anew."""
    end, before = time.monotonic() + SECONDS, _written(file)
    while _written(file) == before and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.002)


def _written(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def assert_same(one: Path, other: Path, own_processes: bool = False) -> None:
    """The same prompts, checkpoint, history, results and names of files."""
    first, second = outcome(one), outcome(other)
    if not own_processes:
        # The checker of types and shapes, which runs within the tests, draws what it looks at.
        for end in (first, second):
            del end["checkpoint"]["random_states"]["python"]
    for part, content in first.items():
        assert same_state(content, second[part]), part


def end_of(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Its exit code and what it wrote to standard error."""
    error = process.communicate(timeout=SECONDS)[1]
    return process.returncode, error


def test_killed_at_ten_random_moments(tmp_path: Path, data_root: Path) -> None:
    """In the start, in the midst of epochs and of saves: each batch is saved here."""
    options = (*VIEWS, "OPTIM.MAX_EPOCH", "40")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(arguments(whole, data_root, *options))
    rng = random.Random(1)
    kills = 0
    for early in rng.sample([True] * 2 + [False] * 8, 10):
        process = start(*arguments(killed, data_root, *options, resume=kills > 0))
        if not early:
            wait_for(process, killed / "resume.pth.tar")
        time.sleep(rng.uniform(0, 2.0) if early else rng.uniform(0, 0.3))
        kills += process.poll() is None
        process.kill()
        end_of(process)
    assert kills == 10
    assert not (killed / "results.json").exists()
    finish(arguments(killed, data_root, *options, resume=True))
    assert any(sum(e.get("selections", [])) for e in outcome(whole)["history"])
    assert_same(whole, killed)


def test_killed_before_every_single_operation_on_a_file(tmp_path: Path, data_root: Path) -> None:
    """Before each file is opened to be written, renamed or removed, from first to last."""
    options = ("OPTIM.MAX_EPOCH", "2", "INPUT.TRAIN_VIEWS", "1", "DATASET.NUM_SHOTS", "1")
    few = ("DATASET.SUBSAMPLE_CLASSES", "base", "DATALOADER.TRAIN_X.BATCH_SIZE", "16")
    base = tmp_path / "runs"
    given = command(Path("none"), data_root, *options, *few)
    place = given.index("--output-dir")
    del given[place : place + 2]
    done = subprocess.run(
        [sys.executable, killing.__file__, "steps", str(base), *given],
        env=killing.ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=5 * SECONDS,
    )
    assert done.returncode == 0, done.stderr
    killed = [folder for folder in base.iterdir() if folder.name != killing.WHOLE]
    assert len(killed) > 30
    for folder in killed:
        assert_same(base / killing.WHOLE, folder, own_processes=True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("kind", [VIEWS, FRESH])
def test_a_signal_saves_at_once(
    number: int, code: int, kind: tuple[str, ...], tmp_path: Path, data_root: Path
) -> None:
    """Also with a loader's processes, which get the signal as well, as from a terminal."""
    options = (*kind, "OPTIM.MAX_EPOCH", "12" if kind is VIEWS else "3")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    finish(arguments(whole, data_root, *options))
    process = start(*arguments(stopped, data_root, *options), often=False)
    wait_for(process, stopped / "tensorboard")
    time.sleep(0.3)
    killing.os.killpg(process.pid, number)
    ended, said = end_of(process)
    (sentence,) = [line for line in said.splitlines() if "arning" not in line]
    assert ended == code, said
    assert sentence.startswith(f"stopped by {signal.Signals(number).name} after ")
    assert f"--resume {stopped}" in sentence
    assert (stopped / "resume.pth.tar").is_file()
    assert not (stopped / "prompt_learner").exists()
    finish(arguments(stopped, data_root, *options, resume=True))
    assert_same(whole, stopped)


def test_a_folder_killed_before_its_first_checkpoint(tmp_path: Path, data_root: Path) -> None:
    """The start is anew; a torn line of the history and half a file are no obstacle."""
    options = (*VIEWS, "OPTIM.MAX_EPOCH", "2")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(arguments(whole, data_root, *options))
    killed.mkdir()
    (killed / "history.jsonl").write_text('{"event": "train", "epoch": 0, "seco')
    (killed / ".results.json.x.tmp").write_text("{")
    finish(arguments(killed, data_root, *options, resume=True))
    assert_same(whole, killed)
    # Once more: it is done, and nothing is done again.
    before = (killed / "results.json").stat().st_mtime_ns
    finish([*arguments(killed, data_root, *options, resume=True)])
    assert (killed / "results.json").stat().st_mtime_ns == before


def test_the_validation_chooses_the_same_epoch(tmp_path: Path, data_root: Path) -> None:
    """Killed between the validation of an epoch and its end."""
    options = (*VIEWS, "OPTIM.MAX_EPOCH", "4", "TEST.FINAL_MODEL", "best_val")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(arguments(whole, data_root, *options))
    process = start(*arguments(killed, data_root, *options))
    wait_for(process, killed / "prompt_learner" / "model-best.pth.tar")
    process.kill()
    end_of(process)
    finish(arguments(killed, data_root, *options, resume=True))
    assert_same(whole, killed)


def test_an_evaluation_that_was_killed(tmp_path: Path, data_root: Path) -> None:
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
