"""Where runs are done: in worker processes on this machine, or in this process."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import torch

from dassl.utils import UserError, choose_device, keep_loaded

from .runs import Run
from .working import LOST, CleanState, Outcome, serve, work

VISIBLE = "CUDA_VISIBLE_DEVICES"


class Pool(Protocol):
    """Takes runs and says what became of them.

    Attributes:
        width: how many it does at a time.
    """

    @property
    def width(self) -> int:
        """See the class."""

    def free(self) -> int:
        """How many runs can be given to it now."""

    def submit(self, run: Run) -> None:
        """Give it a run; it has to be free."""

    def collect(self, seconds: float) -> list[Outcome]:
        """Wait for outcomes, so long at most."""

    def close(self) -> None:
        """Stop what is running."""


class ThisProcess:
    """Does each run when its outcome is asked for.

    Args:
        threads: of PyTorch on the CPU.
    """

    width = 1

    def __init__(self, threads: int) -> None:
        self._state = CleanState(threads)
        self._given: list[Run] = []
        self._keeping = keep_loaded()
        self._keeping.__enter__()

    def free(self) -> int:
        """One at a time."""
        return 1 - len(self._given)

    def submit(self, run: Run) -> None:
        """Take a run."""
        self._given.append(run)

    def collect(self, seconds: float) -> list[Outcome]:
        """Do it."""
        del seconds
        given, self._given = self._given, []
        return [work(run, self._state) for run in given]

    def close(self) -> None:
        """Forget what was kept."""
        self._keeping.__exit__(None, None, None)


@dataclass
class _Worker:
    process: Any
    connection: Connection
    run: Run | None = None


class Workers:
    """Processes that take run after run and keep CLIP and data loaded between them.

    A worker that dies is replaced; its run is LOST.

    Args:
        count: how many at most; each is started when there is a run for it.
        threads: PyTorch threads of each.
        devices: the numbers of the GPUs to spread them over; empty leaves them all of them.
    """

    def __init__(self, count: int, threads: int, devices: Sequence[str] = ()) -> None:
        self.threads = threads
        self.width = count
        self._slots: list[_Worker | None] = [None] * count
        self._devices = devices
        self._context = multiprocessing.get_context("spawn")

    @property
    def pids(self) -> list[int]:
        """Process numbers of the living workers."""
        return [worker.process.pid for worker in self._slots if worker]

    def free(self) -> int:
        """Idle workers, those that are not started yet included."""
        return sum(worker is None or worker.run is None for worker in self._slots)

    def submit(self, run: Run) -> None:
        """Give the run to an idle worker, or to a new one."""
        slots = range(len(self._slots))
        idle = [i for i in slots if (w := self._slots[i]) is not None and w.run is None]
        number = idle[0] if idle else next(i for i in slots if self._slots[i] is None)
        worker = self._slots[number] or self._start(number)
        worker.run = run
        # A worker that died while it was idle is noticed when the outcome is collected.
        with suppress(BrokenPipeError, ConnectionResetError):
            worker.connection.send(run)

    def collect(self, seconds: float) -> list[Outcome]:
        """Wait for outcomes, so long at most."""
        slots = enumerate(self._slots)
        at_work = [(number, w.connection) for number, w in slots if w is not None and w.run]
        ready = wait([connection for _, connection in at_work], seconds)
        return [self._outcome(number) for number, connection in at_work if connection in ready]

    def _outcome(self, number: int) -> Outcome:
        worker = self._slots[number]
        assert worker is not None and worker.run is not None
        try:
            outcome: Outcome = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            code = worker.process.exitcode
            outcome = Outcome(worker.run, LOST, f"its worker ended with code {code}", broken=True)
        worker.run = None
        if outcome.broken:
            _end([worker])
            self._slots[number] = None
        return outcome

    def _start(self, number: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=serve, args=(theirs, self.threads), name=f"sweep-worker-{number}"
        )
        visible = self._devices[number % len(self._devices)] if self._devices else None
        with _for_child(visible):
            process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._slots[number] = worker
        return worker

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        _end([worker for worker in self._slots if worker is not None])
        self._slots = [None] * len(self._slots)


def _end(workers: Sequence[_Worker]) -> None:
    """End workers: an idle one goes when its connection closes, the others are told to."""
    for worker in workers:
        worker.connection.close()
        if worker.run is not None:
            worker.process.terminate()
    for worker in workers:
        worker.process.join(10)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


@contextmanager
def _for_child(visible: str | None) -> Iterator[None]:
    """What a new process inherits: no interest in Ctrl-C, which is the parent's, and its GPU."""
    before = os.environ.get(VISIBLE)
    if visible is not None:
        os.environ[VISIBLE] = visible
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if visible is not None:
            os.environ.pop(VISIBLE)
            if before is not None:
                os.environ[VISIBLE] = before


def gpus() -> list[str]:
    """The GPUs of this machine, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get(VISIBLE)
    names = [part.strip() for part in named.split(",")] if named else []
    count = torch.cuda.device_count()
    return names[:count] if names else [str(number) for number in range(count)]


def open_pool(runs: Sequence[Run], workers: int | None) -> Pool:
    """Choose where runs are done.

    Args:
        runs: those that are to be done.
        workers: how many processes; 0 does all in this one. None is one per GPU, or per core
            where the runs ask for the CPU.

    Raises:
        UserError: a negative number.
    """
    cores = os.cpu_count() or 1
    kinds = {choose_device(run.cfg()) for run in runs[:1]}
    on_gpu = any(device.type == "cuda" for device in kinds)
    # A GPU that a run names by its number has to keep that number.
    chosen = any(":" in str(run.config["DEVICE"]) for run in runs)
    devices = gpus() if on_gpu and not chosen else []
    if workers is None:
        workers = len(devices) or (1 if on_gpu else cores)
    if workers < 0:
        raise UserError(f"--workers is {workers}, but must be at least 0")
    workers = min(workers, max(1, len(runs)))
    threads = max(1, cores // max(1, workers))
    if workers == 0:
        return ThisProcess(threads)
    return Workers(workers, threads, devices)
