"""Rates of the machine, the cost of steps, and steps of many runs, eager and as a graph."""

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any
from unittest.mock import patch

import torch

from clip import packed_transformer
from trainers.core.frozen_encoder import PRECISIONS
from trainers.core.graphed_step import GraphedStep
from trainers.nemesis import NormPenalty

from ..cases import CASES, ReferenceSide, RepositorySide, Setting
from ..launches import count_launches
from ..measure import Peak, peak_here, seconds_of
from ..synthetic import batch_of_runs, class_names
from .findings import Findings, Size
from .parity import stored

# The cases by backbone; the first backbone has all.
STEPS = {
    "RN50": ("coop", "coop_cached", "pun", "pan1", "pan4", "pan16", "plot", "plot_pan", "cocoop"),
    "ViT-B/16": ("coop", "coop_cached", "pan16"),
}
TINY = {"mini": ("coop", "coop_cached", "pan1")}
# What Table A5 trains for each seed: CoOp, and PUN and PAN with three omegas.
TABLE_A5 = [None, *(NormPenalty(w, beta=b) for w in (0.1, 1.0, 10.0) for b in (1.0, 0.0))]
RUNS = {
    "CoOp": [None],
    "PAN, N = 1": [NormPenalty(beta=0.0)],
    "PAN, N = 16": [NormPenalty(beta=0.0, n=16)],
    "5 runs": TABLE_A5[:5],
    "35 runs": TABLE_A5 * 5,
}
CHECKED = 3  # steps after which the prompts of both must agree


def machine(size: Size, findings: Findings) -> None:
    """Measure the rates from which floors are computed."""
    for precision in size.precisions:
        if precision != "amp":
            findings.measure(f"products, {precision}", _products, size, precision)
    findings.measure("copy and launch", _copy_and_launch, size)


def _products(size: Size, precision: str) -> dict[str, float]:
    dtype = PRECISIONS.get(precision, torch.float32)
    side = 8192 if size.device.type == "cuda" else 256
    x, y = (torch.randn(side, side, device=size.device, dtype=dtype) for _ in "xy")
    with meaning_of_fp32(precision):
        return {"TFLOP/s": 2 * side**3 / seconds_of(lambda: x @ y, size.device) / 1e12}


def _copy_and_launch(size: Size) -> dict[str, float]:
    source = torch.ones(2 ** (28 if size.device.type == "cuda" else 20), device=size.device)
    target, one = torch.empty_like(source), torch.zeros(1, device=size.device)
    seconds = seconds_of(lambda: target.copy_(source), size.device)
    launches = seconds_of(lambda: [one.add_(1) for _ in range(1000)], size.device)
    return {"TB/s": 2 * source.nbytes / seconds / 1e12, "us a launch": 1e3 * launches}


@contextmanager
def meaning_of_fp32(precision: str) -> Iterator[None]:
    """Allow TF32 on CUDA for the precision tf32, and only for it."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def cost(workload: Callable[[], object], size: Size) -> dict[str, Any]:
    """Return milliseconds, launches, waits and peak memory of a workload."""
    workload()
    workload()
    seconds = seconds_of(workload, size.device)
    launches = count_launches(workload, size.device)
    found: dict[str, Any] = {"ms": 1e3 * seconds, "launches": launches.issued}
    found["waits"] = launches.waits
    if size.device.type == "cuda":
        peak = peak_here(workload, size.device)
        found["busy, ms"] = 1e3 * (launches.busy or 0.0)
        found["MiB"] = round(peak.above / 2**20) if isinstance(peak, Peak) else peak
    return found


def steps(size: Size, findings: Findings) -> None:
    """Measure training steps of both sides."""
    # The reference has no pure fp16: its amp is what published code uses.
    precisions = ("fp32",) if size.tiny else ("tf32", "amp", "fp16")
    for backbone, classes, precision in _settings(size, TINY if size.tiny else STEPS, precisions):
        if findings.left() <= 0:
            return  # loading the reference takes seconds
        weights = stored(backbone, size.folder)
        setting = Setting(weights, class_names(classes), size.device, precision)
        sides: list[Any] = [RepositorySide(setting)]
        sides += [ReferenceSide(setting)] if precision != "fp16" else []
        for case in (TINY if size.tiny else STEPS)[backbone]:
            name = f"{backbone}, {classes} classes, {case}, {precision}"
            findings.measure(name, _step, size, sides, case)
        title = f"{backbone}, {classes} classes, attention to whole groups, {precision}"
        findings.measure(title, _whole_groups, size, setting)
        del sides
        free(size.device)


def _settings(
    size: Size, backbones: Iterable[str], precisions: Sequence[str]
) -> Iterator[tuple[str, int, str]]:
    """Yield backbones, numbers of classes and precisions; each precision loads CLIP anew."""
    counts = (5,) if size.tiny else (100, 1000)
    for backbone, precision, classes in product(backbones, precisions, counts):
        yield backbone, classes, precision


def _step(size: Size, sides: Sequence[Any], case: str) -> dict[str, Any]:
    own, *others = sides
    with meaning_of_fp32(own.setting.precision):
        found = cost(own.workload(CASES[case]), size)
        for reference in others:
            try:
                other = cost(reference.workload(CASES[case]), size)
            except torch.OutOfMemoryError:
                return {**found, "note": "the reference needs more memory"}
            found |= {f"reference: {name}": value for name, value in other.items()}
            found["reference / this repository"] = other["ms"] / found["ms"]
    return found


def _whole_groups(size: Size, setting: Setting) -> dict[str, Any]:
    """Return the cost of CoOp's cached step with both forms of the text encoder's attention."""
    found: dict[str, dict[str, Any]] = {}
    for name, limit in (("blocks", 0), ("whole", 1 << 20)):
        limits = patch.dict(packed_transformer.WHOLE_GROUP, {size.device.type: limit})
        with limits, meaning_of_fp32(setting.precision):
            found[name] = cost(RepositorySide(setting).workload(CASES["coop_cached"]), size)
    blocks = {f"blocks: {key}": value for key, value in found["blocks"].items()}
    return {
        **found["whole"],
        **blocks,
        "blocks / whole": blocks["blocks: ms"] / found["whole"]["ms"],
    }


def batches(size: Size, findings: Findings) -> None:
    """Measure the step of many runs: eager, as a graph, and against the steps of runs alone."""
    precisions = ("fp32",) if size.tiny else ("tf32", "bf16")
    for name, classes, precision in _settings(size, ("mini" if size.tiny else "RN50",), precisions):
        backbone = stored(name, size.folder)
        alone = RepositorySide(Setting(backbone, class_names(classes), size.device, precision))
        for runs, penalties in RUNS.items():
            title = f"{runs}, {classes} classes, {precision}"
            findings.measure(title, _batch, size, alone, penalties)
            free(size.device)


def _batch(
    size: Size, alone: RepositorySide, penalties: Sequence[NormPenalty | None]
) -> dict[str, Any]:
    with meaning_of_fp32(alone.setting.precision):
        trainer = alone.trainer("CoOp")
        one = cost(alone.workload(CASES["coop_cached"]), size)["ms"]
        prompts, inputs = batch_of_runs(trainer, penalties, 32)
        for _ in range(CHECKED):
            prompts.step(inputs)
        eager = prompts.ctx.detach().clone()
        found = cost(lambda: prompts.step(inputs), size)
        free(size.device)
        prompts, inputs = batch_of_runs(trainer, penalties, 32)
        graph = GraphedStep(prompts)
        for _ in range(CHECKED):
            graph(inputs)
        found["captured"] = graph.captured
        found["difference of the graph"] = float((eager - prompts.ctx).abs().max())
        if graph.captured:
            found["graph, ms"] = 1e3 * seconds_of(lambda: graph(inputs), size.device)
    best = min(found["ms"], found.get("graph, ms", found["ms"]))
    return {**found, "CoOp alone / a run of the batch": len(penalties) * one / best}


def free(device: torch.device) -> None:
    """Give the memory of finished measurements back."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
