"""Time Tip-Adapter's grid search on random features, by default of 200 x 20 points."""

import argparse
import os
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from torch.nn import functional

from safeio.errors import UserError
from trainers.core.key_cache import KeyCache, search

from .cases import Workload
from .measure import Effort, time_by_turns
from .report import Report, environment, measured_with, table

SIZES = {"images": 10_000, "keys": 1_600, "classes": 100, "width": 1_024}
SCALE = (13.0, 13.0)
TARGET = 10.0  # seconds on two cores


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    add = parser.add_argument
    for name, default in SIZES.items():
        add(f"--{name}", type=int, default=default, metavar="N", help=f"default {default:,}")
    add("--steps", type=int, nargs=2, default=(200, 20), metavar="N", help="of beta and alpha")
    add("--repetitions", type=int, default=3, metavar="N", help="default 3")
    add("--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="default: the cores")


def run(arguments: argparse.Namespace) -> Report:
    """Measure the search.

    Raises:
        UserError: a number is below 1.
    """
    numbers = {name: getattr(arguments, name) for name in (*SIZES, "repetitions", "threads")}
    for name, value in (*numbers.items(), *(("steps", value) for value in arguments.steps)):
        if value < 1:
            raise UserError(f"--{name} is {value}, but must be at least 1")
    torch.set_num_threads(arguments.threads)
    device = torch.device("cpu")
    settings = environment(device, **numbers, steps=list(arguments.steps))
    effort = Effort(arguments.repetitions, 120.0, arguments.threads)
    workload = make_search(numbers, arguments.steps)
    seconds = median(time_by_turns({"search": workload}, effort, device)["search"])
    rows = [[*(numbers[name] for name in SIZES), *arguments.steps, seconds, TARGET]]
    columns = (*SIZES, "betas", "alphas", "seconds", "target")
    title = "Tip-Adapter's grid search"
    parts = (table("key_search", title, columns, rows), measured_with(settings))
    return Report("key_search", parts, {**settings, "seconds": seconds, "target": TARGET})


def make_search(sizes: dict[str, int], steps: Sequence[int]) -> Workload:
    """Return the search on random unit features, with as many keys of each class as possible."""
    draw = torch.Generator().manual_seed(0)

    def features(count: int) -> Any:
        rows = torch.randn(count, sizes["width"], generator=draw)
        return functional.normalize(rows, dim=-1)

    classes = sizes["classes"]
    labels = torch.arange(sizes["keys"]) % classes
    cache = KeyCache(labels, classes, sizes["width"], 1.0, 1.0).requires_grad_(False)
    cache.keys.copy_(features(sizes["keys"]))
    images, classifier = features(sizes["images"]), features(classes)
    truth = torch.randint(classes, (sizes["images"],), generator=draw)
    return lambda: search(cache, images, truth, classifier, SCALE, steps)
