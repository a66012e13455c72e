"""Execute tasks in a worker process, which restores its state between them."""

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
from trainers.core.batched import train_together

from .runs import Run, State, Task, clean_folder, locate, locked, newest_log, state_of

DONE, SKIPPED, BUSY, FAILED, LOST = "done", "skipped", "busy", "failed", "lost"


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run.

    Attributes:
        run: the run.
        status: DONE, SKIPPED (finished before), BUSY (another process holds its lock), FAILED, or
            LOST (its worker died).
        reason: of a failure, in one sentence.
        seconds: wall time; in a batch, the run's share.
        broken: after an unexpected exception; the process should be replaced.
    """

    run: Run
    status: str
    reason: str = ""
    seconds: float = 0.0
    broken: bool = False


class _ToLog(io.TextIOBase):
    """Standard error that writes to standard output, which goes to the run's log."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)

    def isatty(self) -> bool:
        return False


class CleanState:
    """Process-wide state that a run may change, to be restored after it.

    Args:
        threads: of PyTorch on the CPU.
    """

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self.threads = threads
        self.dtype = torch.get_default_dtype()
        self.deterministic = torch.are_deterministic_algorithms_enabled()
        self.precision = torch.get_float32_matmul_precision()
        cudnn = torch.backends.cudnn
        self.cudnn = (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32)
        self.environment = dict(os.environ)
        self.folder = Path.cwd()

    def restore(self) -> None:
        """Restore the state, and seed the global generators."""
        torch.set_num_threads(self.threads)
        torch.set_default_dtype(self.dtype)
        torch.use_deterministic_algorithms(self.deterministic)
        torch.set_float32_matmul_precision(self.precision)
        cudnn = torch.backends.cudnn
        cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = self.cudnn
        torch.set_grad_enabled(True)
        set_random_seed(0)  # draws before a run seeds itself must not depend on earlier runs
        os.chdir(self.folder)
        if dict(os.environ) != self.environment:
            os.environ.clear()
            os.environ.update(self.environment)
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is not None:
            pyplot.close("all")


def work(task: Task, state: CleanState) -> list[Outcome]:
    """Execute a run or a batch of runs, except for runs that are finished or locked elsewhere.

    Output goes only to the runs' logs. Signals raise; all other exceptions become outcomes.

    Args:
        task: one run, or a batch of runs.
        state: of the process, restored before and after.

    Returns:
        The outcome of each run, in no particular order.
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
    """Lock runs and prepare their folders; return early outcomes and the runs to execute."""
    outcomes: list[Outcome] = []
    ready: list[Run] = []
    for run in task:
        try:
            if not locks.enter_context(locked(run)):
                outcomes.append(Outcome(run, BUSY))
                continue
            located = locate(run)
            found = state_of(located)
            if found is State.DONE:
                outcomes.append(Outcome(run, SKIPPED))
                continue
            clean_folder(located, found)
            prepare_output_dir(located.folder)
            ready.append(located)
        except Exception as error:
            outcomes.append(_failed(run, error))
    return outcomes, ready


def _do(runs: Sequence[Run]) -> list[Exception | None]:
    """Execute runs; return for each the exception that ended it, or None."""
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
    """Return the outcome of a failed run and append the reason to its log."""
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
    """Main loop of a worker: receive a task, execute it, send outcomes, until the pipe closes."""
    state = CleanState(threads)
    tqdm.set_lock(threading.RLock())  # tqdm's default lock would stay locked by a killed worker
    with reuse_loaded(), contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            try:
                outcomes = work(connection.recv(), state)
            except Interrupted as stop:  # the runs are saved
                sys.exit(stop.exit_code)
            for outcome in outcomes:
                connection.send(outcome)
