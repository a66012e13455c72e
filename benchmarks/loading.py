"""Compare the speed of data loading with the image encoder, in images per second.

Both are an evaluation's own code: `build_data_loader` with the test transform, and the image
encoder of `ZeroshotCLIP`. The workloads of one encoder alternate in one process.
"""

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dassl.config import get_cfg_default
from dassl.data import build_data_loader
from dassl.data.datasets import Datum
from dassl.data.transforms import build_transform
from datasets.emoji import SCENES, SOURCE_STYLES, concepts_of, write_scenes

from .cases import TEST_BATCH, Workload
from .cost import add_measuring_flags, check
from .measure import Effort, time_by_turns
from .report import Report, environment, measured_with, table
from .synthetic import Backbone, class_names, synthetic_trainer

IMAGES = 500
WIDTH, HEIGHT = 500, 375  # common in public datasets
ENCODE = "encoding alone"
NOTES = f"""\
Loading is decoding, the test transform and collating batches of {TEST_BATCH}; encoding is the image
encoder on batches in memory. A ratio above 1 means that loading is faster than the encoder. Workers
are separate processes (DATALOADER.NUM_WORKERS, at most one per core); if they share the cores with
the encoder, "both" is the throughput of loading and encoding combined. The time includes starting
the workers, about half a second; it dominates for few small images, for which the bundled
configurations use no workers."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    add_measuring_flags(parser.add_argument)


def run(arguments: argparse.Namespace) -> Report:
    """Measure loading and encoding of each backbone, by default of RN50 and mini.

    Raises:
        UserError: a number is too small, the device is not available, or a backbone is unknown.
    """
    device = check(arguments)
    backbones = [Backbone.find(name) for name in arguments.backbones or ("RN50", "mini")]
    effort = Effort(arguments.repetitions or 3, 60.0, arguments.threads)
    settings = environment(device, threads=effort.threads, repetitions=effort.repetitions)
    torch.set_num_threads(effort.threads)
    speeds = [row for backbone in backbones for row in measure_loading(backbone, device, effort)]
    names = ("images", "backbone", "what", "per_second", "ratio")
    rows = [[speed[name] for name in names] for speed in speeds]
    columns = ["images", "backbone", "what", "images/s", "x encoding"]
    parts = [table("loading", "Loading", columns, rows, measured_with(settings)), NOTES]
    return Report("loading", parts, {"settings": settings, "speeds": speeds})


def measure_loading(
    backbone: Backbone, device: torch.device, effort: Effort, count: int = IMAGES
) -> list[dict[str, Any]]:
    """Measure one backbone: the bundled one with its scenes, any other with photographs.

    Returns:
        Rows with `images` (description), `backbone`, `what` (loading, encoding, or both),
        `per_second` (median), `runs` (of every repetition), and `ratio` to encoding alone.
    """
    with TemporaryDirectory() as folder:
        make = make_scenes if backbone.name == "mini" else make_photographs
        paths = make(Path(folder), count)
        with Image.open(paths[0]) as image:
            title = f"{count} {image.format} of {image.width} x {image.height}"
        timings = time_by_turns(make_workloads(backbone, device, paths), effort, device)
    encoding = median(timings[ENCODE])
    return [
        {
            "images": title,
            "backbone": backbone.name,
            "what": what,
            "per_second": count / median(seconds),
            "runs": [count / one for one in seconds],
            "ratio": encoding / median(seconds),
        }
        for what, seconds in timings.items()
    ]


def make_photographs(folder: Path, count: int = IMAGES) -> list[str]:
    """Write JPEGs of smooth random colours with noise, which compress like photographs."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        noise = rng.normal(0, 8, (HEIGHT, WIDTH, 1))
        pixels = np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)
        path = folder / f"{number:03d}.jpg"
        Image.fromarray(pixels).save(path, quality=85)
        paths.append(str(path))
    return paths


def make_scenes(folder: Path, count: int = IMAGES) -> list[str]:
    """Write scenes of the bundled benchmark."""
    slugs = [concept.slug for concept in concepts_of("activities")][: -(-count // SCENES)]
    write_scenes(SOURCE_STYLES[0], slugs, folder)
    return [str(path) for path in sorted(folder.rglob("*.png"))][:count]


def make_workloads(
    backbone: Backbone, device: torch.device, paths: Sequence[str]
) -> dict[str, Workload]:
    """Return workloads for loading with and without workers, encoding, and both."""
    opts = ("INPUT.INTERPOLATION", "bicubic", "INPUT.TRANSFORMS", ["normalize"])
    trainer = synthetic_trainer("ZeroshotCLIP", backbone, class_names(2), device, *opts)
    items = [Datum(path) for path in paths]
    workers = min(get_cfg_default().DATALOADER.NUM_WORKERS, os.cpu_count() or 1)
    in_process, with_workers = (_loader(trainer.cfg, items, number) for number in (0, workers))
    batches = [batch["img"] for batch in in_process]

    def load(loader: Iterable[Any]) -> Workload:
        return lambda: [None for _ in loader]

    def encode(images: Iterable[Tensor]) -> None:
        with torch.no_grad():
            for batch in images:
                trainer.image_features(batch.to(device, non_blocking=True))

    def both(loader: Iterable[Any]) -> Workload:
        return lambda: encode(batch["img"] for batch in loader)

    return {
        "loading, this process": load(in_process),
        f"loading, {workers} workers": load(with_workers),
        ENCODE: lambda: encode(batches),
        "both, this process": both(in_process),
        f"both, {workers} workers": both(with_workers),
    }


def _loader(cfg: Any, items: Sequence[Datum], workers: int) -> Iterable[Any]:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATALOADER.NUM_WORKERS = workers
    return build_data_loader(
        cfg,
        data_source=items,
        batch_size=TEST_BATCH,
        tfm=build_transform(cfg, is_train=False),
        is_train=False,
    )
