"""Doing runs, one or several together, in a process that does many."""

import contextlib
import io
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import datasets  # noqa: F401  (registers the datasets)
import trainers  # noqa: F401  (registers the methods)
from dassl.engine import Interrupted, run_experiment
from dassl.utils import (
    generator_states,
    refused_by_system,
    reuse_loaded,
    set_generator_states,
    set_random_seed,
)
from safeio.errors import UserError
from safeio.files import prepare_output_dir
from safeio.untrusted import printable
from trainers.core.vectorised import train_together

from .runs import Run, State, Task, locate, locked, newest_log, state_of, tidy

DONE, KNOWN, BUSY, FAILED, LOST = "done", "known", "busy", "failed", "lost"


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        run: which.
        status: DONE now, KNOWN to be done by somebody else, BUSY in another process, FAILED, or
            LOST with the worker that had it.
        reason: one sentence about a failure.
        seconds: wall time; of runs that were trained together, each one's share.
        broken: something unexpected happened, so that the process should be replaced.
    """

    run: Run
    status: str
    reason: str = ""
    seconds: float = 0.0
    broken: bool = False


class _ToLog(io.TextIOBase):
    """Standard error that goes where standard output goes: into the run's log."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)

    def isatty(self) -> bool:
        return False


class CleanState:
    """Puts back what a run may have changed in its process.

    Args:
        threads: of PyTorch on the CPU.
    """

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self.threads = threads
        self.dtype = torch.get_default_dtype()
        self.deterministic = torch.are_deterministic_algorithms_enabled()
        self.precision = torch.get_float32_matmul_precision()
        self.cudnn = (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)
        self.environment = dict(os.environ)
        self.folder = Path.cwd()

    def restore(self) -> None:
        """Make the process as it was."""
        torch.set_num_threads(self.threads)
        torch.set_default_dtype(self.dtype)
        torch.use_deterministic_algorithms(self.deterministic)
        torch.set_float32_matmul_precision(self.precision)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = self.cudnn
        torch.set_grad_enabled(True)
        set_random_seed(0)  # a run seeds itself; what draws before that depends on no other run
        os.chdir(self.folder)
        if dict(os.environ) != self.environment:
            os.environ.clear()
            os.environ.update(self.environment)
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is not None:
            pyplot.close("all")


def work(task: Task, state: CleanState) -> list[Outcome]:
    """Do runs, together if there are several, but none that is done or that another process has.

    What they print goes to their logs alone. Nothing but a signal is raised.

    Args:
        task: one run, or several that can be trained together.
        state: of the process, put back before the runs and after them.

    Returns:
        What became of each, in no particular order.
    """
    start = time.perf_counter()
    generators = generator_states()
    state.restore()
    try:
        with contextlib.ExitStack() as locks:
            outcomes, ready = _open(task, locks)
            ends = _do(ready)
            share = (time.perf_counter() - start) / max(1, len(ready))
            for run, end in zip(ready, ends, strict=True):
                outcomes.append(_failed(run, end) if end else Outcome(run, DONE, seconds=share))
            return outcomes
    finally:
        state.restore()
        set_generator_states(generators)


def _open(task: Task, locks: contextlib.ExitStack) -> tuple[list[Outcome], list[Run]]:
    """Lock runs and prepare their folders; returns what can be said already, and what is to do."""
    outcomes: list[Outcome] = []
    ready: list[Run] = []
    for run in task:
        try:
            if not locks.enter_context(locked(run)):
                outcomes.append(Outcome(run, BUSY))
                continue
            there = locate(run)
            found = state_of(there)
            if found is State.DONE:
                outcomes.append(Outcome(run, KNOWN))
                continue
            tidy(there, found)
            prepare_output_dir(there.folder)
            ready.append(there)
        except Exception as error:
            outcomes.append(_failed(run, error))
    return outcomes, ready


def _do(runs: Sequence[Run]) -> list[Exception | None]:
    """Do runs and say what ended each: None, or an exception."""
    with (
        Path(os.devnull).open("w") as sink,
        contextlib.redirect_stdout(sink),
        contextlib.redirect_stderr(_ToLog()),
        warnings.catch_warnings(),
    ):
        try:
            if len(runs) > 1:
                return train_together([run.cfg() for run in runs])
            for run in runs:
                model_dir = str(locate(run.source).folder) if run.source is not None else None
                run_experiment(run.cfg(), model_dir=model_dir)
            return [None] * len(runs)
        except Exception as error:
            return [error] * len(runs)


def _failed(run: Run, error: Exception) -> Outcome:
    """Say at the end of the log, too, why the run failed."""
    broken = False
    if isinstance(error, (UserError, FloatingPointError)):
        reason = printable(str(error))
    else:
        reason = printable(refused_by_system(error))
        broken = not reason
    text = f"error: {reason}"
    if broken:
        reason = f"{type(error).__name__}: {printable(' '.join(str(error).split()))}"
        text = "".join(traceback.format_exception(error))
    with contextlib.suppress(OSError):
        log = newest_log(locate(run).folder)
        if log is not None:
            with log.open("a", encoding="utf-8") as file:
                file.write(text.rstrip() + "\n")
    return Outcome(run, FAILED, reason, broken=broken)


def serve(connection: Any, threads: int) -> None:
    """A worker's life: take a task, do it, say what became of its runs, until the pipe closes."""
    state = CleanState(threads)
    tqdm.set_lock(threading.RLock())  # its own, between processes, would outlive a killed worker
    with reuse_loaded(), contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            try:
                outcomes = work(connection.recv(), state)
            except Interrupted as stop:  # its runs are saved
                sys.exit(stop.exit_code)
            for outcome in outcomes:
                connection.send(outcome)
