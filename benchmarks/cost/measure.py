"""Measure seconds, alternating in one process, and peak memory, in a separate process each."""

import gc
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from clip.config import CLIPConfig

from .cases import CASES, REFERENCE, Case, Setting, Workload, make_side

# A longer first run counts as a repetition: one-off costs are negligible in it.
LONGEST_WARM_UP = 2.0
STATUS = Path("/proc/self/status")
GIB = 2**30


@dataclass
class Timing:
    """Seconds of a workload's repetitions."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median over the repetitions."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Peak:
    """Peak memory in bytes: above the loaded model, and total (process, or CUDA tensors)."""

    above: int
    total: int


def synchronise(device: torch.device) -> None:
    """Wait until an asynchronous device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds_of(workload: Workload, device: torch.device) -> float:
    """Return the wall-clock seconds of one run."""
    gc.collect()
    synchronise(device)
    start = time.perf_counter()
    workload()
    synchronise(device)
    return time.perf_counter() - start


def time_by_turns(
    workloads: Mapping[str, Workload],
    repetitions: int,
    budget: float,
    device: torch.device,
    done: Callable[[str], None] = lambda name: None,
) -> dict[str, Timing]:
    """Time all workloads in rounds, so that disturbances affect all of them alike.

    Args:
        workloads: by name.
        repetitions: number of rounds.
        budget: seconds after which a workload skips the remaining rounds; it runs at least once.
        device: device to synchronise.
        done: called with the workload's name after each of its rounds.
    """
    timings = {name: Timing() for name in workloads}
    for name, workload in workloads.items():
        first = seconds_of(workload, device)
        if first > LONGEST_WARM_UP:
            timings[name].seconds.append(first)
            done(name)
    for repetition in range(repetitions):
        for name, workload in workloads.items():
            taken = timings[name].seconds
            if len(taken) > repetition:
                continue
            if not taken or sum(taken) < budget:
                taken.append(seconds_of(workload, device))
            done(name)
    return timings


def available_memory() -> int:
    """Return the bytes that a new process can use without swapping."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def reference_memory(case: Case, config: CLIPConfig, classes: int) -> int:
    """Estimate the bytes that a case's reference implementation needs above the model.

    For the backward pass, a block stores 14 rows of width D per token in fp32: the inputs of both
    norms, queries, keys, values and the attention output, and the input of QuickGELU and its
    sigmoid, four times as wide (frozen linear layers store nothing). Temporary tensors of one block
    take about as much again. A quarter is added for fragmentation; for a CoOp step with 100 classes
    on RN50 this estimates 3.7 GiB, measured 3.6 and 3.95. The image encoder takes 12 MiB per image
    of 224 x 224 pixels.
    """
    row = 4 * config.transformer_width
    prompts = classes * (case.sets if case.learns else 1)
    tokens = config.context_length * prompts
    blocks = config.transformer_layers + 1 if case.learns else 1
    images = case.batch * (config.image_resolution / 224) ** 2
    return int(tokens * 14 * row * blocks * 1.25 + images * 12 * 2**20)


def why_skipped(case: Case, side: str, setting: Setting) -> str:
    """Return why a workload is skipped on a CPU; "" if it is not."""
    if side != REFERENCE or setting.device.type != "cpu":
        return ""
    need = reference_memory(case, setting.backbone.config, len(setting.classnames))
    free = available_memory()
    if need < 0.9 * free:
        return ""
    return f"needs about {need / GIB:.0f} GiB, {free / GIB:.0f} GiB are free"


def peak_memory(key: str, side: str, setting: Setting, threads: int) -> Peak | str:
    """Return the peak memory of a case's first run in a new process, or why it did not fit.

    Raises:
        RuntimeError: the process failed for a reason other than memory; it has printed the error.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    job = (sender, key, side, setting, threads)
    process = context.Process(target=_send_peak, args=job, daemon=True)
    process.start()
    sender.close()  # so that recv raises EOFError if the child dies
    try:
        peak: Peak | str = receiver.recv()
    except EOFError:
        process.join()
        if process.exitcode is not None and process.exitcode < 0:
            return f"did not fit: signal {-process.exitcode} ended its process"
        raise RuntimeError(f"Measuring the memory of {side} {key} failed, see above.") from None
    process.join()
    return peak


def _send_peak(sender: Connection, *job: Any) -> None:
    sender.send(_peak_here(*job))


def _peak_here(key: str, side: str, setting: Setting, threads: int) -> Peak | str:
    """Measure in this process, which must be new."""
    torch.set_num_threads(threads)
    workload = make_side(side, setting).workload(CASES[key])
    gc.collect()
    device, free = setting.device, available_memory()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    else:
        before = _start_peak()
        _limit_memory(free)
    try:
        workload()
    except (RuntimeError, MemoryError) as error:  # torch's allocators raise RuntimeError
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            return f"did not fit: {free / GIB:.0f} GiB were free"
        raise
    synchronise(device)
    total = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _peak()
    return Peak(total - before, total)


def _limit_memory(free: int) -> None:
    """Make an allocation beyond the free memory fail here, before the OOM killer acts."""
    if STATUS.is_file():
        limit = _status("VmData") + free
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _status(key: str) -> int:
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def _start_peak() -> int:
    """Reset the peak if the system can, and return the current resident bytes."""
    if not STATUS.is_file():
        return _peak()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _status("VmHWM")
    return _status("VmRSS")


def _peak() -> int:
    """Return the peak resident bytes.

    On Linux, a new process inherits its parent's `ru_maxrss`, so getrusage is not used there.
    """
    if STATUS.is_file():
        return _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
