"""Where runs are done: in worker processes on this machine, or in this process."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import torch

from dassl.utils import choose_device, reuse_loaded
from safeio.errors import UserError

from .runs import Run, Task
from .worker import LOST, CleanState, Outcome, serve, work

VISIBLE = "CUDA_VISIBLE_DEVICES"


class Executor(Protocol):
    """Takes tasks and says what became of their runs.

    Attributes:
        width: how many tasks it does at a time.
        device: the type of device on which runs compute, such as cpu or cuda.
    """

    device: str

    @property
    def width(self) -> int:
        """See the class."""

    def free(self) -> int:
        """How many tasks can be given to it now."""

    def submit(self, task: Task) -> None:
        """Give it a task; it has to be free."""

    def collect(self, seconds: float) -> list[Outcome]:
        """Wait for outcomes, so long at most."""

    def close(self) -> None:
        """Stop what is running."""


class ThisProcess:
    """Does each task when its outcomes are asked for.

    Args:
        threads: of PyTorch on the CPU.
        device: see `Executor`.
    """

    width = 1

    def __init__(self, threads: int, device: str = "cpu") -> None:
        self.device = device
        self._state = CleanState(threads)
        self._given: list[Task] = []
        self._keeping = reuse_loaded()
        self._keeping.__enter__()

    def free(self) -> int:
        """One at a time."""
        return 1 - len(self._given)

    def submit(self, task: Task) -> None:
        """Take a task."""
        self._given.append(task)

    def collect(self, seconds: float) -> list[Outcome]:
        """Do it."""
        del seconds
        given, self._given = self._given, []
        return [outcome for task in given for outcome in work(task, self._state)]

    def close(self) -> None:
        """Let go of what was loaded."""
        self._keeping.__exit__(None, None, None)


@dataclass
class _Worker:
    """A process; `task` are the runs that it has, by digest."""

    process: Any
    connection: Connection
    task: dict[str, Run] = field(default_factory=dict)
    broken: bool = False


class Workers:
    """Processes that take task after task and keep CLIP and data loaded between them.

    A worker that dies is replaced; the runs that it had are LOST.

    Args:
        count: how many at most; each is started when there is a task for it.
        threads: PyTorch threads of each.
        devices: the numbers of the GPUs to spread them over; empty leaves them all of them.
        device: see `Executor`.
    """

    def __init__(
        self, count: int, threads: int, devices: Sequence[str] = (), device: str = "cpu"
    ) -> None:
        self.device = device
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
        return sum(worker is None or not worker.task for worker in self._slots)

    def submit(self, task: Task) -> None:
        """Give the task to an idle worker, or to a new one."""
        slots = range(len(self._slots))
        idle = [i for i in slots if (w := self._slots[i]) is not None and not w.task]
        number = idle[0] if idle else next(i for i in slots if self._slots[i] is None)
        worker = self._slots[number] or self._start(number)
        worker.task = {run.digest: run for run in task}
        # A worker that died while it was idle is noticed when the outcome is collected.
        with suppress(BrokenPipeError, ConnectionResetError):
            worker.connection.send(task)

    def collect(self, seconds: float) -> list[Outcome]:
        """Wait for outcomes, so long at most."""
        at_work = [worker for worker in self._slots if worker and worker.task]
        # A dead worker's end of the pipe stays open as long as a process that it has started.
        ends = {end: w for w in at_work for end in (w.connection, w.process.sentinel)}
        ready = {id(ends[end]) for end in wait(list(ends), seconds)}
        found = [out for w in at_work if id(w) in ready for out in self._outcomes(w)]
        for worker in at_work:
            if worker.broken and not worker.task:
                self._slots[self._slots.index(worker)] = None
                _end([worker])
        return found

    def _outcomes(self, worker: _Worker) -> Iterator[Outcome]:
        """What a worker has said, and what it will never say."""
        # In this order: what it has sent before its end is there when its end is seen.
        alive = worker.process.is_alive()
        try:
            while worker.task and worker.connection.poll():
                outcome: Outcome = worker.connection.recv()
                del worker.task[outcome.run.digest]
                worker.broken |= outcome.broken
                yield outcome
        except (EOFError, ConnectionResetError):
            alive = False
        if alive or not worker.task:
            return
        worker.process.join()
        reason = f"its worker ended with code {worker.process.exitcode}"
        lost, worker.task, worker.broken = worker.task, {}, True
        for run in lost.values():
            yield Outcome(run, LOST, reason)

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
        if worker.task:
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


def open_executor(runs: Sequence[Run], workers: int | None) -> Executor:
    """Choose where runs are done.

    Args:
        runs: those that are to be done.
        workers: how many processes; 0 does all in this one. None is one per GPU, or per core
            where the runs ask for the CPU.

    Raises:
        UserError: a negative number.
    """
    cores = os.cpu_count() or 1
    device = choose_device(runs[0].cfg()).type if runs else "cpu"
    on_gpu = device == "cuda"
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
        return ThisProcess(threads, device)
    return Workers(workers, threads, devices, device)
