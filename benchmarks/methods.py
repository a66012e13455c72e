"""Measure training steps of methods against one of CoOp, side by side, with this repository alone.

Each step is measured with images, which it encodes, and on cached image features, in rounds. The
fastest round of each counts, since other programs can only slow a round down; on a CPU, the time
is that of this process alone.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from safeio.errors import UserError

from .cost import add_measuring_flags, check
from .measure import seconds_of
from .report import Report, environment, measured_with, table
from .synthetic import N_CTX, Backbone, class_names, random_images, random_labels, synthetic_trainer

BASELINE = "CoOp"
METHODS = ("KgCoOp", "ProGrad", "TCP")
BATCH = 32
INPUTS = ("images", "cached features")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the section `methods`."""
    add = parser.add_argument
    add("--classes", nargs="+", type=int, default=[100], metavar="C", help="default 100")
    add("--methods", nargs="+", default=METHODS, help=f"trainers, default {' '.join(METHODS)}")
    add_measuring_flags(add)
    parser.set_defaults(backbones=["RN50"], repetitions=10)


def settings_of(method: str, backbone: Backbone) -> list[Any]:
    """Return settings with which a method has CoOp's prompts, and fits a small text encoder."""
    layer = 2 * backbone.config.transformer_layers // 3
    tcp = ["OPTIM.NAME", "adam", "OPTIM.ADAM_EPS", 1e-3, "TRAINER.TCP.INSERT_LAYER", layer]
    return {"KgCoOp": ["TRAINER.KGCOOP.N_CTX", N_CTX], "TCP": tcp}.get(method, [])


def run(arguments: argparse.Namespace) -> Report:
    """Measure the selected methods and return the report.

    Raises:
        UserError: see `cost.check`; or a method is unknown.
    """
    device = check(arguments)
    rounds, threads = arguments.repetitions, arguments.threads
    settings = environment(device, threads=threads, repetitions=rounds)
    torch.set_num_threads(threads)
    rows = []
    for name in arguments.backbones:
        backbone = Backbone.find(name)
        for classes in arguments.classes:
            rows += measure(backbone, classes, arguments.methods, rounds, device)
    columns = ["backbone", "classes", "method"]
    columns += [f"{inputs}, {unit}" for inputs in INPUTS for unit in ("s", "x CoOp")]
    title = f"A training step, batch {BATCH}, fp32"
    shown = table("methods", title, columns, rows, measured_with(settings))
    contents = {"settings": settings, "rows": [dict(zip(columns, r, strict=True)) for r in rows]}
    return Report("methods", [shown], contents)


def measure(
    backbone: Backbone, classes: int, methods: list[str], rounds: int, device: torch.device
) -> list[list[Any]]:
    """Return a row of the report for CoOp and for each method."""
    names = list(dict.fromkeys((BASELINE, *methods)))
    images, labels = random_images(BATCH, backbone, device), random_labels(BATCH, classes, device)
    workloads: dict[str, Callable[[], object]] = {}
    for name in names:
        settings = settings_of(name, backbone)
        trainer = synthetic_trainer(name, backbone, class_names(classes), device, *settings)
        if not trainer.trains_on_features:
            raise UserError(f"--methods: {name} does not train on cached features")
        features = trainer.model.image_features(images)
        batches = {"img": images, "label": labels}, {"features": features, "label": labels}
        for inputs, batch in zip(INPUTS, batches, strict=True):
            workloads[f"{name} {inputs}"] = partial(trainer.forward_backward, batch)
    for workload in workloads.values():
        workload()  # lays out the prompts
    taken = [{key: _seconds(w, device) for key, w in workloads.items()} for _ in range(rounds)]
    seconds = {key: min(numbers[key] for numbers in taken) for key in workloads}
    rows = []
    for name in names:
        row: list[Any] = [backbone.name, classes, name]
        for inputs in INPUTS:
            fastest = seconds[f"{name} {inputs}"]
            row += [fastest, fastest / seconds[f"{BASELINE} {inputs}"]]
        rows.append(row)
    return rows


def _seconds(workload: Callable[[], object], device: torch.device) -> float:
    if device.type != "cpu":
        return seconds_of(workload, device)
    start = time.process_time()
    workload()
    return time.process_time() - start
