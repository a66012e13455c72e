"""Sweeps whose runs are trained together: the same table, each run with a folder of its own."""

import re
import signal
from pathlib import Path
from typing import Any

import pytest

from nemesis.commands import sweep
from nemesis.sweeps.executors import Workers
from nemesis.sweeps.runs import LOCKS, Run, State, Task, locked, state_of
from nemesis.sweeps.schedule import execute
from nemesis.sweeps.worker import DONE, FAILED, CleanState, Outcome, work
from tests.helpers.runs import results
from tests.helpers.sweeps_small import PUN, learned, runs_in, wait_for, write
from tests.runs.test_sweep_workers import Murderer, start

HERE = ("--workers", "0")
PAN = {"trainer": "CoOpNemesis", "set": {"TRAINER.NEMESIS.BETA": 0.0}}
METHODS: dict[str, Any] = {"CoOp": None, "CoOp+PUN": PUN, "CoOp+PAN": PAN}
DIVERGING = {"trainer": "CoOp", "set": {"OPTIM.LR": 1e38, "OPTIM.MAX_EPOCH": 3}}
KEPT = {"OPTIM.MAX_EPOCH": 12, "TRAIN.CHECKPOINT_FREQ": 1}


class Recorder(Workers):
    """Notes the tasks that it is given, and does none of them.

    Args:
        count: how many it takes at a time.
    """

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


def assert_same(one: Run, other: Run) -> None:
    (prompt, accuracy), (prompt_2, accuracy_2) = learned(one), learned(other)
    assert (prompt - prompt_2).abs().max() <= 1e-5, one.name
    assert accuracy == accuracy_2, one.name


def sizes(runs: list[Run], workers: int, together: int) -> list[int]:
    """How many runs each task has."""
    pool = Recorder(workers)
    execute(runs, set(), pool, lambda outcome: None, together)
    assert sorted(run.name for task in pool.tasks for run in task) == sorted(r.name for r in runs)
    return [len(task) for task in pool.tasks]


def test_the_table_is_that_of_runs_one_by_one(tmp_path: Path, data_root: Path) -> None:
    keys: dict[str, Any] = {"shots": [1, 2], "seeds": [1, 2, 3], "methods": METHODS}
    keys["evaluate"] = [{"name": "sketch", "set": {"DATASET.TARGET_DOMAINS": ["openmoji-black"]}}]
    validation = {"TEST.SPLIT": "val"}  # has fewer images
    plain = write(tmp_path / "plain", data_root, validation, **keys)
    shared = write(tmp_path / "shared", data_root, validation, **keys)
    assert sweep.main([plain, *HERE]) == 0
    assert sweep.main([shared, *HERE, "--vectorise", "3"]) == 0
    for one, other in zip(runs_in(plain), runs_in(shared), strict=True):
        assert (one.name, one.digest) == (other.name, other.digest)
        assert state_of(other) is State.DONE
        assert len(list(other.folder.glob("log.txt*"))) == 1
        found = results(other.folder)
        assert "vectorised" not in results(one.folder)
        if other.source is None:
            assert found["vectorised"] == 3
            assert_same(one, other)
            assert f"seed: {found['seed']}" in (other.folder / "log.txt").read_text().lower()
        else:
            assert found["accuracy"] == results(one.folder)["accuracy"]


def test_companies_leave_something_to_do_for_every_worker(tmp_path: Path, data_root: Path) -> None:
    runs = runs_in(write(tmp_path, data_root, seeds=list(range(7))))
    assert sizes(runs, 1, 1) == [1] * 7
    assert sizes(runs, 1, 3) == [3, 3, 1]
    assert sizes(runs, 2, 3) == [3, 3, 1]
    assert sizes(runs, 4, 3) == [2, 2, 2, 1]
    assert sizes(runs, 1, 35) == [5, 2]  # as many as a CPU trains at once


def test_what_cannot_be_trained_together_goes_alone(tmp_path: Path, data_root: Path) -> None:
    methods = {"ZeroshotCLIP": {"set": {"INPUT.TRAIN_VIEWS": 0}}, "PLOT": None, **METHODS}
    path = write(tmp_path, data_root, methods=methods, evaluate=[{"name": "again"}])
    # ZeroshotCLIP and PLOT, each with its test behind it; a company of three, and its tests.
    assert sizes(runs_in(path), 1, 3) == [1, 1, 1, 1, 3, 1, 1, 1]


def test_a_failing_run_ends_alone(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = {"diverging": DIVERGING, "blocked": PUN, "CoOp": None, "CoOp+PAN": PAN}
    path = write(tmp_path, data_root, methods=methods)
    blocked = tmp_path / "runs/emoji_activities/blocked"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    assert sweep.main([path, *HERE, "--vectorise", "4"]) == 1
    printed = capsys.readouterr()
    assert "2 runs done, 0 were done already, 2 failed, 0 left" in printed.out
    assert "cannot be a folder: a file with this name exists" in printed.err
    assert "the training has diverged" in printed.err
    assert "    error: The loss is" in printed.err  # from its log
    assert "Traceback" not in printed.err
    states = [state_of(run) for run in runs_in(path) if run.method != "blocked"]
    assert states == [State.TODO, State.DONE, State.DONE]
    assert [results(run.folder)["vectorised"] for run in runs_in(path)[2:]] == [3, 3]


def test_done_and_busy_runs_are_no_part_of_a_company(tmp_path: Path, data_root: Path) -> None:
    runs = runs_in(write(tmp_path, data_root, seeds=[1, 2, 3, 4]))
    state = CleanState(1)
    assert [outcome.status for outcome in work(tuple(runs[:1]), state)] == ["done"]
    before = (runs[0].folder / "results.json").read_bytes()
    with locked(runs[1]):
        outcomes = work(tuple(runs), state)
    assert {o.run.digest: o.status for o in outcomes} == {
        run.digest: status
        for run, status in zip(runs, ("skipped", "busy", "done", "done"), strict=True)
    }
    assert (runs[0].folder / "results.json").read_bytes() == before
    assert results(runs[2].folder)["vectorised"] == 2
    assert not runs[1].folder.exists()


def test_the_runs_of_a_killed_worker_are_resumed(tmp_path: Path, data_root: Path) -> None:
    methods = {
        "short": {"trainer": "CoOp", "set": {"OPTIM.MAX_EPOCH": 1, "TEST.SPLIT": "val"}},
        "CoOp+PUN": PUN,
        "CoOp": None,
    }
    path = write(tmp_path, data_root, KEPT, methods=methods)
    runs = runs_in(path)

    class AfterTheFirst(Murderer):
        """Kills when one run of the company is done and the others are in the middle."""

        def collect(self, seconds: float) -> list[Outcome]:
            if self.victims:
                wait_for(runs[0].folder / "results.json", lambda: Workers.collect(self, 0))
            return super().collect(seconds)

    outcomes: list[Outcome] = []
    pool = AfterTheFirst(1)
    try:
        execute(runs, set(), pool, outcomes.append, 3)
    finally:
        pool.close()
    assert [outcome.status for outcome in outcomes] == [DONE] * 3
    assert outcomes[0].run.method == "short"
    logs = [sorted(run.folder.glob("log.txt*")) for run in runs]
    assert [len(found) for found in logs] == [1, 2, 2]
    assert all("will resume training" in found[-1].read_text() for found in logs[1:])
    alone = write(tmp_path / "alone", data_root, KEPT, methods=methods)
    assert sweep.main([alone, *HERE]) == 0
    for one, other in zip(runs_in(alone), runs, strict=True):
        assert_same(one, other)


def test_runs_that_have_killed_a_worker_are_tried_again_one_by_one(
    tmp_path: Path, data_root: Path
) -> None:
    runs = runs_in(write(tmp_path, data_root, seeds=[1, 2]))
    outcomes: list[Outcome] = []
    pool = Murderer(2)
    try:
        execute(runs, set(), pool, outcomes.append, 2)
    finally:
        pool.close()
    assert sorted(outcome.status for outcome in outcomes) == [DONE, FAILED]
    assert "its worker ended with code -9, 2 times" in [outcome.reason for outcome in outcomes]


def test_two_sweeps_at_once_do_every_run_once(tmp_path: Path, data_root: Path) -> None:
    path = write(tmp_path, data_root, seeds=[1, 2, 3, 4, 5])
    both = [start(path, "--vectorise", "3"), start(path)]
    counts = []
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        counts.append(int((re.findall(r"^(\d+) runs done", out) or ["0"])[0]))
    assert sum(counts) == 5
    for run in runs_in(path):
        assert state_of(run) is State.DONE
        assert len(list(run.folder.glob("log.txt*"))) == 1


def test_ctrl_c_stops_a_company_and_the_next_start_goes_on(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, data_root, {**KEPT, "OPTIM.MAX_EPOCH": 30}, seeds=[1, 2])
    runs = runs_in(path)
    process = start(path, "--workers", "0", "--vectorise", "2")  # the later --workers counts
    for run in runs:
        wait_for(
            run.folder / "prompt_learner/checkpoint",
            lambda: process.poll() is not None and process.communicate(),
        )
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "0 runs done, 0 were done already, 0 failed, 2 left" in out
    assert [state_of(run) for run in runs] == [State.RESUME] * 2
    assert sweep.main([path, *HERE, "--vectorise", "2"]) == 0
    assert "2 runs done" in capsys.readouterr().out
    assert [results(run.folder)["epochs"] for run in runs] == [30, 30]


def test_the_dry_run_does_nothing_and_mistakes_are_told(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, data_root, seeds=[1, 2])
    assert sweep.main([path, "--dry-run", "--vectorise", "2"]) == 0
    assert "2 runs: 0 done, 0 to resume, 2 to do" in capsys.readouterr().out
    assert not (tmp_path / "runs" / LOCKS).exists()
    assert sweep.main([path, "--vectorise", "0"]) == 2
    assert capsys.readouterr().err == "error: --vectorise is 0, but must be at least 1\n"
