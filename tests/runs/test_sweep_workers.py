"""Worker processes and batches of runs: one is killed, all are stopped, two sweeps run at once."""

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from nemesis.commands import sweep
from nemesis.sweeps.executors import Workers
from nemesis.sweeps.progress import last_lines
from nemesis.sweeps.runs import Run, State, Task, locked, state_of
from nemesis.sweeps.schedule import execute
from nemesis.sweeps.worker import DONE, FAILED, CleanState, Outcome, work
from tests.helpers.runs import results, wait_for
from tests.helpers.sweeps_small import HERE, PUN, learned, runs_in, write

PAN = {"trainer": "CoOpNemesis", "set": {"TRAINER.NEMESIS.BETA": 0.0}}
METHODS: dict[str, Any] = {"CoOp": None, "CoOp+PUN": PUN, "CoOp+PAN": PAN}
KEPT = {"OPTIM.MAX_EPOCH": 20, "TRAIN.CHECKPOINT_FREQ": 1}


class Murderer(Workers):
    """Kills its worker.

    Args:
        victims: so many times.
        when: a file of the last run of the task that must exist before the first kill.
    """

    def __init__(self, victims: int, when: str = "") -> None:
        super().__init__(1, 1)
        self.victims, self.when = victims, when

    def collect(self, seconds: float) -> list[Outcome]:
        if self.victims:
            self.victims -= 1
            (worker,) = filter(None, self._slots)
            if self.when:
                path = list(worker.task.values())[-1].folder / self.when
                wait_for(path, lambda: super(Murderer, self).collect(0))
            os.kill(self.pids[0], signal.SIGKILL)
            worker.process.join(60)  # or the next victim might be the same
        return super().collect(seconds)

    def outcomes_of(self, runs: list[Run], together: int) -> list[Outcome]:
        outcomes: list[Outcome] = []
        try:
            execute(runs, set(), self, outcomes.append, together)
        finally:
            self.close()
        return outcomes


class Recorder(Workers):
    """Records its tasks and does none of them."""

    def __init__(self, count: int) -> None:
        super().__init__(count, 1)
        self.given: list[Task] = []
        self.tasks: list[Task] = []

    def free(self) -> int:
        return self.width - len(self.given)

    def submit(self, task: Task) -> None:
        self.given.append(task)
        self.tasks.append(task)

    def collect(self, seconds: float) -> list[Outcome]:
        given, self.given = self.given, []
        return [Outcome(run, DONE) for task in given for run in task]


def start(path: str, *flags: str) -> "subprocess.Popen[str]":
    """A sweep in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "nemesis", "sweep", path, "--workers", "1", *flags],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def workers_in(group: int) -> list[int]:
    """The worker processes of a group that are alive."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, own = stat.read_text().rpartition(")")[2].split()[:3]
            command = (stat.parent / "cmdline").read_text()
            if int(own) == group and state != "Z" and "spawn_main" in command:
                found.append(int(stat.parent.name))
    return found


def assert_same(one: Run, other: Run, tolerance: float = 1e-5) -> None:
    (prompt, accuracy), (prompt_2, accuracy_2) = learned(one), learned(other)
    assert (prompt - prompt_2).abs().max() <= tolerance, one.name
    assert accuracy == accuracy_2, one.name


@pytest.mark.slow
def test_the_runs_of_a_killed_worker_are_resumed(tmp_path: Path, data_root: Path) -> None:
    """A batch in the middle; then a single run."""
    methods = {"CoOp+PAN": PAN, "CoOp+PUN": PUN, "CoOp": None}
    path = write(tmp_path, data_root, KEPT, methods=methods)
    runs = runs_in(path)
    checkpoint = "prompt_learner/checkpoint"
    outcomes = Murderer(1, checkpoint).outcomes_of(runs, 3)
    assert [outcome.status for outcome in outcomes] == [DONE] * 3
    logs = [sorted(run.folder.glob("log.txt*")) for run in runs]
    assert [len(found) for found in logs] == [2, 2, 2]
    assert all("will resume training" in found[-1].read_text() for found in logs)

    single = runs_in(write(tmp_path / "single", data_root, KEPT))
    assert [o.status for o in Murderer(1, checkpoint).outcomes_of(single, 1)] == [DONE]
    assert len(list(single[0].folder.glob("log.txt*"))) == 2
    whole = write(tmp_path / "whole", data_root, KEPT, methods=methods)
    assert sweep.main([whole, *HERE]) == 0
    for one, other in zip(runs_in(whole), runs, strict=True):
        assert_same(one, other)
    assert_same(runs_in(whole)[2], single[0], tolerance=0)


@pytest.mark.parametrize("together", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_run_that_kills_its_workers_fails_and_the_others_continue(
    together: int, tmp_path: Path, data_root: Path
) -> None:
    """Runs of a batch are tried again one by one."""
    runs = runs_in(write(tmp_path, data_root, methods={"CoOp": None, "CoOp+PUN": PUN}))
    outcomes = Murderer(2).outcomes_of(runs, together)
    assert sorted(outcome.status for outcome in outcomes) == [DONE, FAILED]
    (failed,) = (outcome for outcome in outcomes if outcome.status == FAILED)
    assert failed.reason == "its worker ended with code -9, 2 times"
    assert together > 1 or last_lines(failed.run.folder) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "flags"),
    [
        (signal.SIGINT, ()),
        (signal.SIGTERM, ()),
        (signal.SIGINT, ("--workers", "0", "--batch", "2")),  # the later --workers counts
    ],
)
def test_ctrl_c_stops_and_the_next_start_resumes(
    number: int,
    flags: tuple[str, ...],
    tmp_path: Path,
    data_root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write(tmp_path, data_root, {**KEPT, "OPTIM.MAX_EPOCH": 60}, seeds=[1, 2])
    started = runs_in(path)[: 2 if flags else 1]
    process = start(path, *flags)
    for run in started:
        wait_for(
            run.folder / "prompt_learner/checkpoint",
            lambda: process.poll() is not None and process.communicate(),
        )
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Stopped; run the same command to resume" in err
    assert "Traceback" not in err
    assert "0 runs done, 0 were done already, 0 failed, 2 left" in out
    assert not workers_in(process.pid)
    assert [state_of(run) for run in started] == [State.RESUME] * len(started)
    assert sweep.main([path, *HERE, "--limit", str(len(started)), *flags]) == 0
    assert f"{len(started)} runs done, 0 were done already, 0 failed" in capsys.readouterr().out
    for run in started:
        assert results(run.folder)["epochs"] == 60
        assert len(list(run.folder.glob("log.txt*"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--batch", "3")])
def test_two_sweeps_at_once_do_every_run_once(
    flags: tuple[str, ...], tmp_path: Path, data_root: Path
) -> None:
    path = write(tmp_path, data_root, seeds=[1, 2, 3, 4])
    counts = []
    for process in [start(path, *flags), start(path)]:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        counts.append(int((re.findall(r"^(\d+) runs done", out) or ["0"])[0]))
    assert sum(counts) == 4
    for run in runs_in(path):
        assert state_of(run) is State.DONE
        assert len(list(run.folder.glob("log.txt*"))) == 1


def sizes(runs: list[Run], workers: int, together: int) -> list[int]:
    """The number of runs of each task."""
    pool = Recorder(workers)
    execute(runs, set(), pool, lambda outcome: None, together)
    assert sorted(run.name for task in pool.tasks for run in task) == sorted(r.name for r in runs)
    return [len(task) for task in pool.tasks]


def test_batches_become_smaller_towards_the_end(tmp_path: Path, data_root: Path) -> None:
    runs = runs_in(write(tmp_path, data_root, seeds=list(range(7))))
    assert sizes(runs, 1, 1) == [1] * 7
    assert sizes(runs, 1, 3) == [3, 3, 1]
    assert sizes(runs, 2, 3) == [3, 2, 1, 1]
    assert sizes(runs, 4, 3) == [2, 2, 1, 1, 1]
    assert sizes(runs, 1, 35) == [7]
    methods = {"ZeroshotCLIP": {"set": {"INPUT.TRAIN_VIEWS": 0}}, "PLOT": None, **METHODS}
    mixed = runs_in(write(tmp_path, data_root, methods=methods, evaluate=[{"name": "again"}]))
    # ZeroshotCLIP and PLOT, each followed by its test; a batch of three, and its tests.
    assert sizes(mixed, 1, 3) == [1, 1, 1, 1, 3, 1, 1, 1]


@pytest.mark.slow
def test_batches_give_the_table_of_single_runs(tmp_path: Path, data_root: Path) -> None:
    keys: dict[str, Any] = {"shots": [1, 2], "methods": METHODS}
    keys["evaluate"] = [{"name": "sketch", "set": {"DATASET.TARGET_DOMAINS": ["openmoji-black"]}}]
    single = write(tmp_path / "single", data_root, **keys)
    shared = write(tmp_path / "shared", data_root, **keys)
    assert sweep.main([single, *HERE]) == 0
    assert sweep.main([shared, *HERE, "--batch", "3"]) == 0
    for one, other in zip(runs_in(single), runs_in(shared), strict=True):
        assert (one.name, one.digest) == (other.name, other.digest)
        assert state_of(other) is State.DONE
        assert len(list(other.folder.glob("log.txt*"))) == 1
        found = results(other.folder)
        assert "batched" not in results(one.folder)
        if other.source is None:
            assert found["batched"] == 3
            assert_same(one, other)
            assert f"seed: {found['seed']}" in (other.folder / "log.txt").read_text().lower()
        else:
            assert found["accuracy"] == results(one.folder)["accuracy"]


def test_done_busy_and_failing_runs_are_no_part_of_a_batch(tmp_path: Path, data_root: Path) -> None:
    diverging = {"trainer": "CoOp", "set": {"OPTIM.LR": 1e38}}
    methods: dict[str, Any] = {
        "done": {"trainer": "CoOp", "seeds": [2]},
        "busy": {"trainer": "CoOp", "seeds": [3]},
    }
    methods |= {"diverging": diverging, "blocked": PUN, "CoOp": {}, "CoOp+PAN": PAN}
    path = write(tmp_path, data_root, {"OPTIM.MAX_EPOCH": 3}, methods=methods)
    done, busy, *others = runs_in(path)
    state = CleanState(1)
    assert [outcome.status for outcome in work((done,), state)] == ["done"]
    before = (done.folder / "results.json").read_bytes()
    others[1].folder.parents[1].write_text("in the way")
    with locked(busy):
        outcomes = {o.run.method: o for o in work((done, busy, *others), state)}
    assert {label: outcome.status for label, outcome in outcomes.items()} == {
        **{"done": "skipped", "busy": "busy", "diverging": "failed", "blocked": "failed"},
        **{"CoOp": "done", "CoOp+PAN": "done"},
    }
    assert "cannot be a folder: a file with this name exists" in outcomes["blocked"].reason
    assert "the training has diverged" in outcomes["diverging"].reason
    assert last_lines(others[0].folder)[-1].startswith("error: The loss is")
    assert (done.folder / "results.json").read_bytes() == before
    assert [results(run.folder)["batched"] for run in others[2:]] == [3, 3]
    assert not busy.folder.exists()
    assert state_of(others[0]) is State.TODO
