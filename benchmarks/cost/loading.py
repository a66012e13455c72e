"""Compare the speed of data loading with the image encoder, in images per second.

Both are an evaluation's own code: `build_data_loader` with the test transform, and the image
encoder of `ZeroshotCLIP`. The workloads of one encoder alternate in one process.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate
from torch import Tensor
from tqdm import tqdm

from dassl.config import get_cfg_default
from dassl.data import build_data_loader
from dassl.data.datasets import Datum
from dassl.data.transforms import build_transform
from datasets.emoji import SCENES, SOURCE_STYLES, concepts_of, write_scenes
from safeio.files import write_atomic, write_json

from .cases import TEST_BATCH, Workload
from .measure import time_by_turns
from .run import Effort
from .synthetic import Backbone, class_names, synthetic_trainer

IMAGES = 500
WIDTH, HEIGHT = 500, 375  # common in public datasets
ENCODE = "encoding alone"
NOTES = """\
Loading is decoding, the test transform and collating batches of {batch}; encoding is the image
encoder on batches in memory. A ratio above 1 means that loading is faster than the encoder. Workers
are separate processes (DATALOADER.NUM_WORKERS, at most one per core); if they share the cores with
the encoder, "both" is the throughput of loading and encoding combined. The time includes starting
the workers, about half a second; it dominates for few small images, for which the bundled
configurations use no workers."""


@dataclass(frozen=True)
class Speed:
    """One row of the report.

    Attributes:
        images: description of the images.
        backbone: name of the backbone.
        what: loading, encoding, or both.
        per_second: images per second, median over the repetitions.
        runs: images per second of every repetition.
        ratio: `per_second` over that of encoding alone.
    """

    images: str
    backbone: str
    what: str
    per_second: float
    runs: list[float]
    ratio: float


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


def worker_count() -> int:
    """Return the default of DATALOADER.NUM_WORKERS, at most one per core."""
    return min(get_cfg_default().DATALOADER.NUM_WORKERS, os.cpu_count() or 1)


def measure_loading(
    backbone: Backbone, device: torch.device, effort: Effort, count: int = IMAGES
) -> list[Speed]:
    """Measure one backbone: the bundled one with its scenes, any other with photographs.

    Args:
        backbone: the CLIP to measure.
        device: device of the encoder.
        effort: repetitions and time budget per workload.
        count: number of images.
    """
    scenes = backbone.name == "mini"
    with TemporaryDirectory() as folder:
        paths = (make_scenes if scenes else make_photographs)(Path(folder), count)
        with Image.open(paths[0]) as image:
            title = f"{count} {image.format} of {image.width} x {image.height}"
        workloads = make_workloads(backbone, device, paths)
        total = effort.repetitions * len(workloads)
        bar: Any = tqdm(total=total, unit="run", disable=None, desc=backbone.name)
        with bar:
            timings = time_by_turns(
                workloads, effort.repetitions, effort.budget, device, lambda _: bar.update()
            )
    encoding = timings[ENCODE].median
    return [
        Speed(
            title,
            backbone.name,
            what,
            count / timing.median,
            [count / seconds for seconds in timing.seconds],
            encoding / timing.median,
        )
        for what, timing in timings.items()
    ]


def make_workloads(
    backbone: Backbone, device: torch.device, paths: Sequence[str]
) -> dict[str, Workload]:
    """Return workloads for loading with and without workers, encoding, and both."""
    opts = ("INPUT.INTERPOLATION", "bicubic", "INPUT.TRANSFORMS", ["normalize"])
    trainer = synthetic_trainer("ZeroshotCLIP", backbone, class_names(2), device, *opts)
    items = [Datum(path) for path in paths]
    workers = worker_count()
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


def write_loading_report(folder: Path, speeds: Sequence[Speed], settings: dict[str, Any]) -> str:
    """Write loading.md and loading.json to the folder and return the Markdown."""
    rows = [
        [speed.images, speed.backbone, speed.what, f"{speed.per_second:.0f}", f"{speed.ratio:.2f}"]
        for speed in speeds
    ]
    header = ["images", "backbone", "what", "images/s", "x encoding"]
    table = tabulate(rows, header, tablefmt="github", disable_numparse=True)
    measured_with = ", ".join(f"{key} {value}" for key, value in settings.items())
    notes = NOTES.format(batch=TEST_BATCH)
    parts = ["# Loading", f"Measured with {measured_with}.", table, notes]
    text = "\n\n".join(parts) + "\n"
    write_atomic(folder / "loading.md", lambda path: path.write_text(text, encoding="utf-8"))
    contents = {"settings": settings, "speeds": [asdict(speed) for speed in speeds]}
    write_json(contents, folder / "loading.json")
    return text
