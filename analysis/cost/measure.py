"""How it is measured: seconds by turns in one process, peak memory in a process of its own."""

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

from .cases import CASES, PLAIN, Case, Setting, Workload, make_side

# A first run that is longer than this also counts: what it pays once is small beside it.
LONGEST_WARM_UP = 2.0
STATUS = Path("/proc/self/status")
GIB = 2**30


@dataclass
class Timing:
    """Seconds of a workload's repetitions."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Peak:
    """Peak memory in bytes: above the loaded model, and in all (the process, or CUDA's tensors)."""

    above: int
    total: int


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was told: it works on its own."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds_of(workload: Workload, device: torch.device) -> float:
    """Wall clock of one run."""
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
    """Run all workloads one after the other, again and again: what disturbs one disturbs all.

    Args:
        workloads: by name.
        repetitions: rounds.
        budget: seconds after which a workload, run at least once, sits out the later rounds.
        device: to wait for.
        done: is told the name after every round of a workload.
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
    """Bytes that a new process may use without pushing others out."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def plain_memory(case: Case, config: CLIPConfig, classes: int) -> int:
    """What the plain way of a case needs above the model, estimated in bytes.

    For the backward pass a block keeps 14 rows of width D per token, in fp32: the inputs of both
    norms, queries, keys, values and the mixed values, and in QuickGELU, four times as wide, the
    input and its sigmoid (the frozen linear layers keep nothing). In passing, a block holds about
    as much once. A quarter is added for what allocators leave lying; with 100 classes on RN50 a
    CoOp step was then estimated at 3.7 GiB and measured at 3.6 and 3.95. The image tower is allowed
    12 MiB an image of 224 x 224 pixels.
    """
    row = 4 * config.transformer_width
    prompts = classes * (case.sets if case.learns else 1)
    tokens = config.context_length * prompts
    blocks = config.transformer_layers + 1 if case.learns else 1
    images = case.batch * (config.image_resolution / 224) ** 2
    return int(tokens * 14 * row * blocks * 1.25 + images * 12 * 2**20)


def why_not(case: Case, side: str, setting: Setting) -> str:
    """Why a workload is not even tried on a CPU; "" when it is."""
    if side != PLAIN or setting.device.type != "cpu":
        return ""
    need = plain_memory(case, setting.backbone.config, len(setting.classnames))
    free = available_memory()
    if need < 0.9 * free:
        return ""
    return f"needs about {need / GIB:.0f} GiB, {free / GIB:.0f} GiB are free"


def peak_memory(key: str, side: str, setting: Setting, threads: int) -> Peak | str:
    """Peak memory of a case's first run in a fresh process, or why there is none.

    Raises:
        RuntimeError: the process failed for another reason than memory; it has said why.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    job = (sender, key, side, setting, threads)
    process = context.Process(target=_send_peak, args=job, daemon=True)
    process.start()
    sender.close()  # so that the child's end is the last one, and its death is seen
    try:
        peak: Peak | str = receiver.recv()
    except EOFError:
        process.join()
        if process.exitcode is not None and process.exitcode < 0:
            return f"did not fit: its process was ended by signal {-process.exitcode}"
        raise RuntimeError(f"Measuring the memory of {side} {key} failed, see above.") from None
    process.join()
    return peak


def _send_peak(sender: Connection, *job: Any) -> None:
    sender.send(_peak_here(*job))


def _peak_here(key: str, side: str, setting: Setting, threads: int) -> Peak | str:
    """Measure in this process, which has done nothing else."""
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
    except (RuntimeError, MemoryError) as error:  # torch's allocators raise RuntimeErrors
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            return f"did not fit: {free / GIB:.0f} GiB were free"
        raise
    synchronise(device)
    total = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _peak()
    return Peak(total - before, total)


def _limit_memory(free: int) -> None:
    """Let an allocation beyond the free memory fail here, before the system ends some process."""
    if STATUS.is_file():
        limit = _status("VmData") + free
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _status(key: str) -> int:
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def _start_peak() -> int:
    """Forget the peak so far where the system can; returns the resident bytes now."""
    if not STATUS.is_file():
        return _peak()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _status("VmHWM")
    return _status("VmRSS")


def _peak() -> int:
    """The highest number of resident bytes.

    On Linux not getrusage's: a process that is started inherits its parent's in `ru_maxrss`.
    """
    if STATUS.is_file():
        return _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
