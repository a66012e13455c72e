"""Doing one run, in a process that does many."""

import contextlib
import io
import os
import random
import sys
import threading
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import datasets  # noqa: F401  (registers the datasets)
import trainers  # noqa: F401  (registers the methods)
from clip.errors import ClipError
from dassl.engine import Interrupted, carry_out
from dassl.utils import UserError, keep_loaded, set_random_seed

from .runs import Run, State, locate, locked, newest_log, state_of, tidy

DONE, KNOWN, BUSY, FAILED, LOST = "done", "known", "busy", "failed", "lost"


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        run: which.
        status: DONE now, KNOWN to be done by somebody else, BUSY in another process, FAILED, or
            LOST with the worker that had it.
        reason: one sentence about a failure.
        seconds: wall time.
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


def work(run: Run, state: CleanState) -> Outcome:
    """Do a run, unless it is done or another process is at it.

    What it prints goes to its log alone. Nothing but a signal is raised.

    Args:
        run: which.
        state: of the process, put back before the run and after it.
    """
    start = time.perf_counter()
    generators = random.getstate(), torch.get_rng_state()
    state.restore()
    try:
        with locked(run) as free:
            status = _do(locate(run)) if free else BUSY
        return Outcome(run, status, seconds=time.perf_counter() - start)
    except (UserError, ClipError, FloatingPointError) as error:
        return _failed(run, str(error), f"error: {error}")
    except Exception as error:
        reason = _refused_by_system(error)
        if reason:
            return _failed(run, reason, f"error: {reason}")
        said = " ".join(str(error).split())
        return _failed(run, f"{type(error).__name__}: {said}", traceback.format_exc(), broken=True)
    finally:
        state.restore()
        random.setstate(generators[0])
        torch.set_rng_state(generators[1])


def _do(run: Run) -> str:
    state = state_of(run)
    if state is State.DONE:
        return KNOWN
    tidy(run, state)
    model_dir = str(locate(run.source).folder) if run.source is not None else None
    with (
        Path(os.devnull).open("w") as sink,
        contextlib.redirect_stdout(sink),
        contextlib.redirect_stderr(_ToLog()),
        warnings.catch_warnings(),
    ):
        carry_out(run.cfg(), model_dir=model_dir)
    return DONE


def _refused_by_system(error: BaseException | None) -> str:
    """What the system would not do, such as writing to a full disk; "" if it is not to blame.

    PyTorch raises an error of its own on top of the system's.
    """
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        error = error.__cause__ or error.__context__
    return ""


def _failed(run: Run, reason: str, text: str, broken: bool = False) -> Outcome:
    """Say at the end of the log, too, why the run failed."""
    with contextlib.suppress(OSError):
        log = newest_log(locate(run).folder)
        if log is not None:
            with log.open("a", encoding="utf-8") as file:
                file.write(text.rstrip() + "\n")
    return Outcome(run, FAILED, reason, broken=broken)


def serve(connection: Any, threads: int) -> None:
    """A worker's life: take a run, do it, say what became of it, until the other end closes."""
    state = CleanState(threads)
    tqdm.set_lock(threading.RLock())  # its own, between processes, would outlive a killed worker
    with keep_loaded(), contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            try:
                outcome = work(connection.recv(), state)
            except Interrupted as stop:  # its run is saved
                sys.exit(stop.exit_code)
            connection.send(outcome)
