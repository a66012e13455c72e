"""Worker processes: one is killed, all are stopped, two sweeps go at once."""

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from nemesis.commands import sweep
from nemesis.sweeps.executors import Workers
from nemesis.sweeps.progress import last_lines
from nemesis.sweeps.runs import State, state_of
from nemesis.sweeps.schedule import execute
from nemesis.sweeps.worker import DONE, FAILED, Outcome
from tests.helpers.runs import results
from tests.helpers.sweeps_small import PUN, learned, runs_in, wait_for, write

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


class Murderer(Workers):
    """Kills the worker of its first runs.

    Args:
        victims: so many times.
        when: a file that has to be there first, below the run's folder.
    """

    def __init__(self, victims: int, when: str = "") -> None:
        super().__init__(1, 1)
        self.victims = victims
        self.when = when

    def collect(self, seconds: float) -> list[Outcome]:
        """Kill before the outcome can come."""
        if self.victims:
            self.victims -= 1
            (worker,) = filter(None, self._slots)
            if self.when:
                (run,) = worker.task.values()
                wait_for(run.folder / self.when, lambda: super(Murderer, self).collect(0))
            os.kill(self.pids[0], signal.SIGKILL)
            worker.process.join(60)  # or the next victim might be the same
        return super().collect(seconds)


def start(path: str, *flags: str) -> "subprocess.Popen[str]":
    """A sweep in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, sweep.__file__, path, "--workers", "1", *flags],
        env=ONE_THREAD,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def alive_in(group: int) -> list[int]:
    """The processes of a group that are no zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, own = stat.read_text().rpartition(")")[2].split()[:3]
            if int(own) == group and state != "Z":
                found.append(int(stat.parent.name))
    return found


def command_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def test_the_run_of_a_killed_worker_is_resumed_by_another(tmp_path: Path, data_root: Path) -> None:
    settings = {"OPTIM.MAX_EPOCH": 12, "TRAIN.CHECKPOINT_FREQ": 1}
    path = write(tmp_path, data_root, settings, methods={"CoOp": None})
    (run,) = runs_in(path)
    outcomes: list[Outcome] = []
    pool = Murderer(1, when="prompt_learner/checkpoint")
    try:
        execute([run], set(), pool, outcomes.append)
    finally:
        pool.close()
    assert [outcome.status for outcome in outcomes] == [DONE]
    assert state_of(run) is State.DONE
    logs = [log.read_text() for log in run.folder.glob("log.txt*")]
    assert len(logs) == 2
    assert any("will resume training" in log for log in logs)
    whole = write(tmp_path / "whole", data_root, settings)
    assert sweep.main([whole, "--workers", "0"]) == 0
    (expected,) = runs_in(whole)
    assert learned(expected)[1] == learned(run)[1]
    assert (learned(expected)[0] == learned(run)[0]).all()


def test_a_run_that_kills_its_workers_fails_and_the_others_go_on(
    tmp_path: Path, data_root: Path
) -> None:
    runs = runs_in(write(tmp_path, data_root, methods={"CoOp": None, "CoOp+PUN": PUN}))
    outcomes: list[Outcome] = []
    pool = Murderer(2)
    try:
        execute(runs, set(), pool, outcomes.append)
    finally:
        pool.close()
    assert [outcome.status for outcome in outcomes] == [FAILED, DONE]
    assert outcomes[0].reason == "its worker ended with code -9, 2 times"
    assert last_lines(runs[0].folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_and_the_next_start_goes_on(
    number: int, tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"OPTIM.MAX_EPOCH": 30, "TRAIN.CHECKPOINT_FREQ": 1}
    path = write(tmp_path, data_root, settings, seeds=[1, 2])
    first, _ = runs_in(path)
    process = start(path)
    wait_for(
        first.folder / "prompt_learner/checkpoint",
        lambda: process.poll() is not None and process.communicate(),
    )
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopped; run the same command to resume" in err
    assert "Traceback" not in err
    assert "0 runs done, 0 were done already, 0 failed, 2 left" in out
    assert not [pid for pid in alive_in(process.pid) if "spawn_main" in command_of(pid)]
    assert state_of(first) is State.RESUME
    assert sweep.main([path, "--workers", "0", "--limit", "1"]) == 0
    assert "1 runs done, 0 were done already, 0 failed, 1 left" in capsys.readouterr().out
    assert results(first.folder)["epochs"] == 30
    assert len(list(first.folder.glob("log.txt*"))) == 2


def test_two_sweeps_at_once_do_every_run_once(tmp_path: Path, data_root: Path) -> None:
    path = write(tmp_path, data_root, seeds=[1, 2, 3, 4])
    both = [start(path), start(path)]
    counts = []
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        counts.append(int((re.findall(r"^(\d+) runs done", out) or ["0"])[0]))
    assert sum(counts) == 4
    for run in runs_in(path):
        assert state_of(run) is State.DONE
        assert len(list(run.folder.glob("log.txt*"))) == 1
