"""Project the GPU hours of the paper's tables: steps, the floor by arithmetic, and two estimates.

Nothing is measured: all numbers are a projection for one H100 with 16 CPU cores until a run of
`bench gpu` replaces its constants. Evaluation and start-up are not counted.

- steps: epochs times full batches of the few-shot sample, over all runs that train. Runs that
  several tables share count in each; the last row counts every run once.
- floor: the products of a step (text encoder forward and backward, image encoder forward, PAN's
  pre-inference) at the card's dense fp16 rate.
- one by one: the longest of three per step: launching its operators, three floors (elementwise
  operators move about three times as many bytes as products need), and decoding its images.
- in batches: runs of one dataset and number of shots as one batch on cached augmentations: three
  floors of the text encoder, launches shared by the batch, and images decoded once per seed.
"""

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from clip.config import ARCHITECTURES, canonical_name
from clip.prompt_layout import arrange_prompt, build_trie
from nemesis.sweeps.command import resolve_sweep
from nemesis.sweeps.runs import Run

from .report import Report, environment, table
from .synthetic import class_names

SWEEPS = (
    *("table_1", "table_2", "table_3", "table_4", "table_a4", "table_a5", "table_a6"),
    *("table_a7", "figure_2", "low_norm", "figure_a1", "figures_a2_a3"),
)
CLASSES = {
    **{"ImageNet": 1000, "Caltech101": 100, "OxfordPets": 37, "StanfordCars": 196},
    **{"OxfordFlowers": 102, "Food101": 101, "FGVCAircraft": 100, "SUN397": 397},
    **{"DescribableTextures": 47, "EuroSAT": 10, "UCF101": 101},
}
FP16 = 750e12  # products per second of an H100, dense
TOWERS = {"RN50": 11.6e9, "ViT-B/16": 35.1e9}  # FLOP of an image
OPERATORS = {"CoOp": 521, "PLOT": 850, "CoCoOp": 561}  # of a step; tests/unit/test_step_ops.py
PAN_OPERATORS = 206
OPERATOR, LAUNCH = 12.7e-6, 5e-6  # seconds: from Python, and in a graph
TRAFFIC = 3
DECODING = 10e-3 / 16  # seconds of an image, on 16 cores


@dataclass(frozen=True)
class Cost:
    """Seconds of one run's training: the floor, one by one, and its share of a batch."""

    steps: int
    floor: float
    alone: float
    batched: float


@cache
def states(classes: int, length: int, specific: bool) -> int:
    """Return the number of text states of a prompt, with ImageNet's class names."""
    prompts = [arrange_prompt(name, length) for name in class_names(classes)]
    return len(build_trie(prompts, specific).token)


def cost(config: Mapping[str, Any], batch: int, sharing: int) -> Cost:
    """Return the cost of a run.

    Args:
        config: the whole configuration.
        batch: number of runs that can be trained as one batch with it.
        sharing: number of these with the same images.
    """
    data, trainer = config["DATASET"], config["TRAINER"]
    method = trainer["NAME"].removesuffix("Nemesis")
    node, size = trainer[method.upper()], config["DATALOADER"]["TRAIN_X"]["BATCH_SIZE"]
    classes = CLASSES[data["NAME"]]
    if data["SUBSAMPLE_CLASSES"] != "all":
        classes = -(-classes // 2)
    images = data["NUM_SHOTS"] * classes
    steps = config["OPTIM"]["MAX_EPOCH"] * max(1, images // size)
    backbone = str(canonical_name(config["MODEL"]["BACKBONE"]["NAME"]))
    clip = ARCHITECTURES[backbone]
    length = len(node["CTX_INIT"].split()) or node["N_CTX"]
    count = states(classes, length, node.get("CSC", False))
    groups = {"PLOT": node.get("N", 1), "CoCoOp": size}.get(method, 1)
    pan = trainer["NAME"] != method and trainer["NEMESIS"]["BETA"] < 1
    passes = 2 + (trainer["NEMESIS"]["N"] if pan else 0)
    state = 24 * clip.transformer_width**2 * clip.transformer_layers
    text = passes * groups * count * state / FP16
    tower = min(size, images) * TOWERS[backbone] / FP16
    operators = OPERATORS[method] + PAN_OPERATORS * pan
    decoding = min(size, images) * DECODING
    alone = max(operators * OPERATOR, TRAFFIC * (text + tower), decoding)
    batched = max(operators * LAUNCH / batch, TRAFFIC * text) + decoding / sharing
    together = alone if method == "CoCoOp" else min(batched, alone)
    return Cost(steps, steps * (text + tower), steps * alone, steps * together)


def costs(runs: Iterable[Run]) -> list[Cost]:
    """Return the cost of the runs that train."""
    trained = [run for run in runs if run.source is None]

    def group(run: Run, *more: Any) -> tuple[Any, ...]:
        config = run.config
        backbone = config["MODEL"]["BACKBONE"]["NAME"]
        family = config["TRAINER"]["NAME"].removesuffix("Nemesis")
        return run.dataset, run.shots, config["OPTIM"]["MAX_EPOCH"], backbone, family, *more

    batches = Counter(group(run) for run in trained)
    seeds = Counter(group(run, run.config["SEED"]) for run in trained)
    return [
        cost(run.config, batches[group(run)], seeds[group(run, run.config["SEED"])])
        for run in trained
    ]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this projection: none."""


def run(arguments: argparse.Namespace) -> Report:
    """Project the hours of every table."""
    del arguments
    rows: list[list[Any]] = []
    distinct: dict[str, Run] = {}
    for name in SWEEPS:
        runs = resolve_sweep(name).runs
        distinct |= {run.digest: run for run in runs}
        rows.append(_row(name, runs))
    rows.append(_row("every run once", list(distinct.values())))
    columns = ["sweep", "runs", "steps", "floor, h", "one by one, h", "in batches, h"]
    shown = table("hours", "Projected hours", columns, rows, __doc__ or "")
    settings = environment(torch.device("cpu"))
    return Report("hours", [shown], {"rows": rows, "columns": columns, "settings": settings})


def _row(name: str, runs: Sequence[Run]) -> list[Any]:
    found = costs(runs)
    seconds = (sum(getattr(one, key) for one in found) for key in ("floor", "alone", "batched"))
    return [name, len(runs), sum(one.steps for one in found), *(s / 3600 for s in seconds)]
