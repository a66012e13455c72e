"""Measure seconds, alternating in one process, and peak memory, in a new process each."""

import gc
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from clip.config import CLIPConfig

from .cases import REFERENCE, Case, Setting, Workload
from .report import STATUS, process_status

# A longer first run counts as a repetition: one-off costs are negligible in it.
LONGEST_WARM_UP = 2.0
CUDA_SECONDS = 0.2  # of each repetition on CUDA, over as many runs as fit
GIB = 2**30
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        repetitions: number of rounds.
        budget: seconds after which a workload skips the remaining rounds; it runs at least once.
        threads: PyTorch's CPU threads.
    """

    repetitions: int
    budget: float
    threads: int


@dataclass(frozen=True)
class Peak:
    """Peak memory in bytes: above the loaded model, and total (process, or CUDA tensors)."""

    above: int
    total: int


def seconds_of(workload: Workload, device: torch.device) -> float:
    """Return the wall-clock seconds of one run; on CUDA, PyTorch's own timer measures several."""
    gc.collect()
    if device.type == "cuda":
        from torch.utils.benchmark import Timer  # prints a warning without CUDA

        timer = Timer(
            "workload()", globals={"workload": workload}, num_threads=torch.get_num_threads()
        )
        return timer.blocked_autorange(min_run_time=CUDA_SECONDS).median
    start = time.perf_counter()
    workload()
    if device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - start


def time_by_turns(
    workloads: Mapping[str, Workload],
    effort: Effort,
    device: torch.device,
    done: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Time all workloads in rounds, so that disturbances affect all of them alike.

    Calls `done` after each round of each workload, and returns the seconds of all rounds by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in workloads}
    for name, workload in workloads.items():
        first = seconds_of(workload, device)
        if first > LONGEST_WARM_UP and device.type == "cpu":  # elsewhere it also loads libraries
            seconds[name].append(first)
            done()
    for repetition in range(effort.repetitions):
        for name, workload in workloads.items():
            taken = seconds[name]
            if len(taken) > repetition:
                continue
            if not taken or sum(taken) < effort.budget:
                taken.append(seconds_of(workload, device))
            done()
    return seconds


def available_memory(device: torch.device = CPU) -> int:
    """Return the bytes that a new process can use, on a CPU without swapping."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
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
    tokens = config.context_length * classes * (case.sets if case.learns else 1)
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


def peak_memory(make: Callable[[], Workload], device: torch.device, threads: int) -> Peak | str:
    """Return the peak memory of a workload's first run in a new process, or why it did not fit.

    Args:
        make: builds the workload; it is pickled.
        device: of the workload.
        threads: PyTorch's CPU threads.

    Raises:
        RuntimeError: the process failed for a reason other than memory; it has printed the error.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    job = (sender, make, device, threads)
    process = context.Process(target=_send_peak, args=job, daemon=True)
    process.start()
    sender.close()  # so that recv raises EOFError if the child dies
    try:
        peak: Peak | str = receiver.recv()
    except EOFError:
        process.join()
        if process.exitcode is not None and process.exitcode < 0:
            return f"did not fit: signal {-process.exitcode} ended its process"
        raise RuntimeError(f"Measuring the memory of {make} failed, see above.") from None
    process.join()
    return peak


def _send_peak(
    sender: Connection, make: Callable[[], Workload], device: torch.device, threads: int
) -> None:
    torch.set_num_threads(threads)
    workload = make()
    gc.collect()
    sender.send(peak_here(workload, device))


def peak_here(workload: Workload, device: torch.device) -> Peak | str:
    """Measure in this process, which must be new on a CPU."""
    free = available_memory(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    else:
        with suppress(OSError):  # reset the peak, if the system allows it
            Path("/proc/self/clear_refs").write_text("5")
        before = process_status("VmHWM")
        _limit_memory(free)
    try:
        workload()
    except (RuntimeError, MemoryError) as error:  # torch's allocators raise RuntimeError
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            return f"did not fit: {free / GIB:.0f} GiB were free"
        raise
    cuda = device.type == "cuda"
    total = torch.cuda.max_memory_allocated(device) if cuda else process_status("VmHWM")
    return Peak(total - before, total)


def _limit_memory(free: int) -> None:
    """Make an allocation beyond the free memory fail here, before the OOM killer acts."""
    if STATUS.is_file():
        limit = process_status("VmData") + free
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
