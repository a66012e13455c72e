"""Count what a workload issues: kernels and waits on CUDA, dispatcher operators elsewhere."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Operators that make the CPU wait for an accelerator.
WAITS = ("_local_scalar_dense", "nonzero", "nonzero_static", "unique_dim", "_unique2", "is_nonzero")
# CUDA calls that do; the profiler itself makes those that wait for the whole device.
CUDA_WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize")


@dataclass(frozen=True)
class Launches:
    """What one run of a workload issues.

    Attributes:
        issued: kernels on CUDA; elsewhere operators that reach the dispatcher, without views.
        waits: how often the CPU waits; on a CPU, how often it would wait for an accelerator.
        busy: seconds in which a kernel or a copy runs on CUDA; None elsewhere.
    """

    issued: int
    waits: int
    busy: float | None = None


class _Operators(TorchDispatchMode):
    """Counts the operators that reach the dispatcher below autograd, without views."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and func.overloadpacket.__name__ != "_unsafe_view":
            self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def count_launches(workload: Callable[[], object], device: torch.device) -> Launches:
    """Run a workload, which has run before, and return what it issues."""
    if device.type == "cuda":
        return _profile(workload)
    with _Operators() as operators:
        workload()
    counts = operators.counts
    return Launches(sum(counts.values()), sum(counts[name] for name in WAITS))


def _profile(workload: Callable[[], object]) -> Launches:
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        workload()
        torch.cuda.synchronize()
    events = list(profiler.events())
    on_device = [one for one in events if one.device_type == torch.autograd.DeviceType.CUDA]
    copies = ("Memcpy", "Memset")
    return Launches(
        sum(not one.name.startswith(copies) for one in on_device),
        sum(one.name in CUDA_WAITS for one in events),
        sum(one.time_range.elapsed_us() for one in on_device) / 1e6,
    )
