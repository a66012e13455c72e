"""Benchmark the mini Table A5 in batches against run by run, with as many workers for both.

The runs of one number of shots (35: seven settings, five seeds) are one group. Each worker has one
thread and has loaded CLIP and the data before. Wall time counts from the first task to the last
outcome; the ratio of processor time is more reliable on a busy machine. The shares are those of the
processor time of one batch in this process: steps, and what surrounds them.
"""

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch

from dassl.engine import experiment
from dassl.engine.resuming import Resuming
from dassl.engine.run_record import RunRecord
from dassl.engine.simple_trainer import SimpleTrainer
from dassl.engine.trainer import TrainerX
from dassl.utils import reuse_loaded
from nemesis.sweeps.command import resolve_sweep
from nemesis.sweeps.executors import Workers
from nemesis.sweeps.runs import Run
from nemesis.sweeps.schedule import execute
from nemesis.sweeps.selection import Selection
from nemesis.sweeps.worker import DONE, CleanState, Outcome
from safeio.errors import UserError
from trainers.core.graphed_step import GraphedStep
from trainers.core.prompt_trainer import PromptTrainer

from .report import STATUS, Report, environment, measured_with, table
from .runs import add_root, check, do_runs

# What takes time in a batch: methods that do not call each other.
PARTS: dict[str, list[tuple[Any, str]]] = {
    "steps": [(GraphedStep, "__call__")],
    "start-up": [(experiment, "build_and_seed"), (PromptTrainer, "before_train")],
    "logging": [(TrainerX, "report_batch"), (RunRecord, "epoch")],
    "saving": [(Resuming, "checkpoint_if_due"), (SimpleTrainer, "save_model")],
    "evaluation": [(PromptTrainer, "test")],
}
TICKS = os.sysconf("SC_CLK_TCK")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    add = parser.add_argument
    add("--k", nargs="+", type=int, default=[5, 35], help="runs per batch (default 5 35)")
    add("--shots", nargs="+", type=int, default=[1, 4, 16], help="images per class")
    add("--workers", type=int, default=2, help="worker processes of both (default 2)")
    add("--epochs", type=int, default=14, help="epochs per run (default 14, as in the table)")
    add("--seeds", type=int, default=5, help="seeds of each setting (default 5, as in the table)")
    add("--rounds", type=int, default=1, help="measured rounds (default 1)")
    add_root(add)


def run(arguments: argparse.Namespace) -> Report:
    """Measure batches of runs."""
    check(arguments, "k", "shots", "workers", "epochs", "seeds", "rounds")
    if not STATUS.is_file():
        raise UserError("batch needs Linux, which reports the processor time of workers")
    settings = environment(torch.device("cpu"), workers=arguments.workers)
    rows = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        workers = Workers(arguments.workers, 1)
        stack.callback(workers.close)
        grid = _Grid(Path(folder), arguments)
        for shots in arguments.shots:
            _seconds(workers, grid.runs(shots)[: arguments.workers], 1)  # loads, makes features
            for k in arguments.k:
                rows.append({"shots": shots, "K": k, **_compare(workers, grid, shots, k)})
                print(rows[-1], flush=True)
    shown = table("batch", "Mini Table A5 in batches", list(rows[0]), [[*r.values()] for r in rows])
    notes = (__doc__ or "").split("\n\n", 1)[1]
    parts = [shown, measured_with(settings), f"Shares are in percent. {notes}"]
    return Report("batch", parts, {"rows": rows, "environment": settings})


class _Grid:
    """Makes the table's runs in a new folder at every call."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.folder, self.arguments, self.made = folder, arguments, 0

    def runs(self, shots: int) -> list[Run]:
        """Return all runs of a number of shots."""
        self.made += 1
        seeds = list(range(1, 1 + self.arguments.seeds))
        return resolve_sweep(
            *("table_a5", "mini_words", self.folder / str(self.made), str(self.arguments.root)),
            settings={"OPTIM.MAX_EPOCH": self.arguments.epochs},
            selection=Selection(lists={"shots": [shots], "seeds": seeds}),
        ).runs


def _compare(workers: Workers, grid: _Grid, shots: int, k: int) -> dict[str, float]:
    times = [
        [_seconds(workers, grid.runs(shots), together) for together in (k, 1)]
        for _ in range(grid.arguments.rounds)
    ]
    batched, alone = (
        [median(each[side][clock] for each in times) for clock in (0, 1)] for side in (0, 1)
    )
    count = len(grid.runs(shots))
    return {
        "runs/min, batches": 60 * count / batched[0],
        "one by one": 60 * count / alone[0],
        "ratio": alone[0] / batched[0],
        "ratio of processor time": alone[1] / batched[1],
        **_shares(grid.runs(shots)[:1], grid.runs(shots)[:k]),
    }


def _seconds(workers: Workers, runs: Sequence[Run], together: int) -> tuple[float, float]:
    """Execute runs; return wall time and the workers' processor time."""

    def done(outcome: Outcome) -> None:
        if outcome.status != DONE:
            raise UserError(f"{outcome.run.name}: {outcome.status} {outcome.reason}")

    start = time.perf_counter(), _processor_seconds(workers)
    execute(runs, set(), workers, done, together)
    return time.perf_counter() - start[0], _processor_seconds(workers) - start[1]


def _processor_seconds(workers: Workers) -> float:
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2] for pid in workers.pids]
    return sum(sum(map(int, text.split()[11:13])) for text in fields) / TICKS


def _shares(first: Sequence[Run], runs: Sequence[Run]) -> dict[str, float]:
    """Return the shares of the processor time of one batch, in percent, after a first run."""
    spent = dict.fromkeys(PARTS, 0.0)

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            start = time.process_time()
            try:
                return function(*arguments, **keywords)
            finally:
                spent[part] += time.process_time() - start

        return call

    state = CleanState(1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(reuse_loaded())
        do_runs(first, state)
        for part, places in PARTS.items():
            for owner, name in places:
                function = timed(part, getattr(owner, name))
                stack.enter_context(patch.object(owner, name, function))
        start = time.process_time()
        do_runs(runs, state)
        total = time.process_time() - start
    found = {part: 100 * seconds / total for part, seconds in spent.items()}
    return {**found, "other": 100 - sum(found.values())}
