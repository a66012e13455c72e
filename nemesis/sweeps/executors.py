"""Executors of runs: worker processes on this machine, or this process."""

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

from .runs import Run, Task
from .worker import LOST, CleanState, Outcome, serve, work

VISIBLE = "CUDA_VISIBLE_DEVICES"


class Executor(Protocol):
    """Executes tasks and returns the outcomes of their runs."""

    device: str  # type of the runs' device, such as cpu or cuda

    @property
    def width(self) -> int:
        """The number of tasks that it executes at a time."""

    def free(self) -> int:
        """Return how many tasks can be submitted now."""

    def submit(self, task: Task) -> None:
        """Submit a task; `free` must not be 0."""

    def collect(self, seconds: float) -> list[Outcome]:
        """Wait for outcomes, at most so many seconds."""

    def close(self) -> None:
        """Stop all tasks."""


class ThisProcess:
    """Executor that runs a task in this process, with so many threads, when `collect` is called."""

    width = 1

    def __init__(self, threads: int, device: str = "cpu") -> None:
        self.device = device
        self._state = CleanState(threads)
        self._tasks: list[Task] = []
        self._cache = reuse_loaded()
        self._cache.__enter__()

    def free(self) -> int:
        """Return 1 if no task waits, else 0."""
        return 1 - len(self._tasks)

    def submit(self, task: Task) -> None:
        """Store a task for `collect`."""
        self._tasks.append(task)

    def collect(self, seconds: float) -> list[Outcome]:
        """Execute the submitted task."""
        del seconds
        tasks, self._tasks = self._tasks, []
        return [outcome for task in tasks for outcome in work(task, self._state)]

    def close(self) -> None:
        """Clear the cache of loaded models and data."""
        self._cache.__exit__(None, None, None)


@dataclass
class _Worker:
    """A worker process; `task` holds its unfinished runs by digest."""

    process: Any
    connection: Connection
    task: dict[str, Run] = field(default_factory=dict)
    broken: bool = False


class Workers:
    """Executor with worker processes that cache CLIP and data between tasks.

    It replaces a worker that dies; the worker's runs are LOST.

    Args:
        count: maximal number of workers; each is started when a task needs it.
        threads: PyTorch threads per worker.
        devices: indices of the GPUs to distribute workers over; empty shows each worker all GPUs.
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
        """Process ids of the live workers."""
        return [worker.process.pid for worker in self._slots if worker]

    def free(self) -> int:
        """Return the number of workers that are idle or not started."""
        return sum(worker is None or not worker.task for worker in self._slots)

    def submit(self, task: Task) -> None:
        """Send the task to an idle worker, or start a new one."""
        idle = [worker for worker in self._slots if worker and not worker.task]
        worker = idle[0] if idle else self._start(self._slots.index(None))
        worker.task = {run.digest: run for run in task}
        # `collect` detects a worker that died while idle.
        with suppress(BrokenPipeError, ConnectionResetError):
            worker.connection.send(task)

    def collect(self, seconds: float) -> list[Outcome]:
        """Wait for outcomes, at most so many seconds."""
        busy = [worker for worker in self._slots if worker and worker.task]
        # Wait for the process, too: its children may hold a dead worker's pipe open.
        ends = {end: w for w in busy for end in (w.connection, w.process.sentinel)}
        ready = {id(ends[end]) for end in wait(list(ends), seconds)}
        outcomes = [out for w in busy if id(w) in ready for out in self._outcomes(w)]
        for worker in busy:
            if worker.broken and not worker.task:
                self._slots[self._slots.index(worker)] = None
                _end([worker])
        return outcomes

    def _outcomes(self, worker: _Worker) -> Iterator[Outcome]:
        """Yield the outcomes that a worker sent and, if it is dead, LOST for its other runs."""
        # Check this before polling, or outcomes sent just before the end would be missed.
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
        connection, child_end = self._context.Pipe()
        process = self._context.Process(
            target=serve, args=(child_end, self.threads), name=f"sweep-worker-{number}"
        )
        visible = self._devices[number % len(self._devices)] if self._devices else None
        with _for_child(visible):
            process.start()
        child_end.close()
        worker = _Worker(process, connection)
        self._slots[number] = worker
        return worker

    def close(self) -> None:
        """End all workers, busy or idle."""
        _end([worker for worker in self._slots if worker is not None])
        self._slots = [None] * len(self._slots)


def _end(workers: Sequence[_Worker]) -> None:
    """End workers: an idle one ends when its connection closes, a busy one gets SIGTERM."""
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
    """Make processes started in this context ignore Ctrl-C and see only the given GPU."""
    before = dict(os.environ)
    os.environ.update({VISIBLE: visible} if visible is not None else {})
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        os.environ.clear()
        os.environ.update(before)


def gpus() -> list[str]:
    """Return the GPUs of this machine, as in CUDA_VISIBLE_DEVICES."""
    named, count = os.environ.get(VISIBLE), torch.cuda.device_count()
    return (
        [part.strip() for part in named.split(",")][:count] if named else [*map(str, range(count))]
    )


def threads_each(cores: int, workers: int) -> int:
    """Return the threads of each worker: its share of the cores, at most OMP_NUM_THREADS.

    On a machine with other jobs, threads that wait for each other make a run many times slower.
    """
    share = max(1, cores // max(1, workers))
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(limit)) if limit.isdecimal() and int(limit) else share


def open_executor(runs: Sequence[Run], workers: int | None) -> Executor:
    """Open the executor for runs on this machine.

    Args:
        runs: to be executed, at least one.
        workers: number of processes; 0 for this process; None for one per GPU, or one per core if
            the runs use the CPU.
    """
    cores = os.cpu_count() or 1
    device = choose_device(runs[0].cfg()).type
    on_gpu = device == "cuda"
    # Restricting the visible GPUs would renumber them, so runs that name one see all.
    named = any(":" in str(run.config["DEVICE"]) for run in runs)
    devices = gpus() if on_gpu and not named else []
    if workers is None:
        workers = len(devices) or (1 if on_gpu else cores)
    workers = min(workers, len(runs))
    threads = threads_each(cores, workers)
    if workers == 0:
        return ThisProcess(threads, device)
    return Workers(workers, threads, devices, device)
