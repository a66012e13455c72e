"""Benchmark the mini Table A5 in batches against run by run, with as many workers for both.

Each worker has one thread and has loaded CLIP and the data before. Wall time counts from the first
task to the last outcome; the ratio of processor time is more reliable on a busy machine. The shares
are those of this process' processor time for the runs of one seed, a batch for each number of
shots: the steps, and what surrounds them.
"""

import argparse
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
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
COLUMNS = ("K", "runs/min", "ratio", "ratio of processor time")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    add = parser.add_argument
    add("--k", nargs="+", type=int, default=[5, 35], help="runs per batch (default 5 35)")
    add("--shots", nargs="+", type=int, default=[16, 8, 4, 2, 1], help="images per class")
    add("--workers", type=int, default=2, help="worker processes (default 2)")
    add("--epochs", type=int, default=14, help="epochs per run (default 14, as in the table)")
    add("--seeds", type=int, default=5, help="seeds of each setting (default 5, as in the table)")
    add_root(add)


def run(arguments: argparse.Namespace) -> Report:
    """Measure the table's runs in batches of each size, and one by one."""
    check(arguments, "k", "shots", "workers", "epochs", "seeds")
    if not STATUS.is_file():
        raise UserError("batch needs Linux, which reports the processor time of workers")
    settings = environment(torch.device("cpu"), workers=arguments.workers)
    with tempfile.TemporaryDirectory() as folder:
        workers = Workers(arguments.workers, 1)
        runs = partial(_runs, arguments, Path(folder))
        try:
            _seconds(workers, runs(epochs=1), max(arguments.k))  # loads, makes features
            times = {}
            for k in (1, *arguments.k):
                times[k] = _seconds(workers, runs(), k)
                print(f"{times[k][0]:.0f} s in batches of {k}", flush=True)
        finally:
            workers.close()
        last = runs()
        shares = _shares([run for run in last if run.config["SEED"] == 1])
        count = len(last)
    rows = [
        [k, 60 * count / wall, times[1][0] / wall, times[1][1] / processor]
        for k, (wall, processor) in times.items()
    ]
    parts = [
        table("batch", f"The {count} runs of the mini Table A5 in batches of K", COLUMNS, rows),
        table("shares", "Shares of a batch's time, percent", list(shares), [[*shares.values()]]),
        measured_with(settings),
        (__doc__ or "").split("\n\n", 1)[1],
    ]
    named = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    return Report("batch", parts, {"rows": named, "shares": shares, "environment": settings})


def _runs(arguments: argparse.Namespace, folder: Path, epochs: int = 0) -> list[Run]:
    """Return the table's runs in a new folder."""
    seeds = list(range(1, 1 + arguments.seeds))
    return resolve_sweep(
        *("table_a5", "mini_words", Path(tempfile.mkdtemp(dir=folder)), str(arguments.root)),
        settings={"OPTIM.MAX_EPOCH": epochs or arguments.epochs},
        selection=Selection(lists={"shots": arguments.shots, "seeds": seeds}),
    ).runs


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


def _shares(runs: Sequence[Run]) -> dict[str, float]:
    """Return the shares of the processor time of batches, one for each number of shots."""
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
    batches = [list(batch) for _, batch in groupby(runs, lambda run: run.shots)]
    with reuse_loaded(), contextlib.ExitStack() as stack:
        do_runs(batches[0][:1], state)  # loads
        shutil.rmtree(batches[0][0].folder)
        for part, places in PARTS.items():
            for owner, name in places:
                function = timed(part, getattr(owner, name))
                stack.enter_context(patch.object(owner, name, function))
        start = time.process_time()
        for batch in batches:
            do_runs(batch, state)
        total = time.process_time() - start
    found = {part: 100 * seconds / total for part, seconds in spent.items()}
    return {**found, "other": 100 - sum(found.values())}
