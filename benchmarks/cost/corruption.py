"""Compare the cost of a corrupted prompt: one process each, as in published code, or one pass.

The benchmark trains CoOp on a dataset in CoOp's layout (with noise as images), processes that
test one corrupted prompt each (`reference_process`), and the study of nemesis low-norm.
"""

import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tabulate import tabulate
from tqdm import tqdm

import datasets  # noqa: F401  (registers the datasets)
import trainers  # noqa: F401  (registers the methods)
from clip.weights import RANDOM_PREFIX
from dassl.config import load_config
from dassl.engine import run_experiment
from nemesis.low_norm.corruption import CorruptionGrid
from nemesis.low_norm.study import StudiedRun, Study, study_file
from safeio.files import write_atomic, write_json

from .synthetic import N_CTX, Backbone, class_names

ROOT = Path(__file__).parent.parent.parent
TEST_IMAGES = 200
GRID = CorruptionGrid(replace=(), rescale=(0.1, 0.5), positions=tuple(range(10)))  # 20 corruptions
TARGET = 100.0
NOTES = """\
Reference: a process per corruption starts Python, loads CLIP, decodes and encodes the test set,
encodes the prompts over 77 tokens and counts; median over several processes. This repository: the
study of {count} corruptions of the same finished run with cached image features, per corruption.
The other rows are whole processes of nemesis low-norm, including start-up, divided by the {count}
corruptions; the full study of a prompt has 160."""


@dataclass(frozen=True)
class Cost:
    """Seconds per corruption.

    Attributes:
        plain: reference implementation, one process each.
        ours: this repository, one study.
        command: a whole process of nemesis low-norm.
        first_command: a whole process of nemesis low-norm without cached image features.
        difference: largest difference between the two sides' counts of correct images.
    """

    plain: float
    ours: float
    command: float
    first_command: float
    difference: int

    @property
    def ratio(self) -> float:
        """Seconds of the reference implementation over seconds of this repository."""
        return self.plain / self.ours


def _write_dataset(root: Path, backbone: Backbone, classes: int, images: int) -> None:
    """Write noise images and a split file in the layout of Caltech101."""
    folder, side = root / "caltech-101", backbone.config.image_resolution
    pictures = folder / "101_ObjectCategories"
    pictures.mkdir(parents=True)
    generator = np.random.default_rng(0)
    names = class_names(classes)
    items = []
    for number in range(max(images, classes)):
        pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{number}.png", compress_level=1)
        items.append([f"{number}.png", number % classes, names[number % classes]])
    split = {"train": items[:classes], "val": items[:classes], "test": items[:images]}
    (folder / "split_zhou_Caltech101.json").write_text(json.dumps(split), encoding="utf-8")


def _weights_file(backbone: Backbone, folder: Path) -> str:
    """Return the weights file of both sides; random weights are saved in OpenAI's precision."""
    if not backbone.weights.startswith(RANDOM_PREFIX):
        return backbone.weights
    state = backbone.load(torch.device("cpu")).model.state_dict()
    halved = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    path = folder / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in halved.items()}, path)
    return str(path)


def make_run(backbone: Backbone, classes: int, images: int, folder: Path) -> Path:
    """Train CoOp for one epoch and return the run's folder."""
    _write_dataset(folder / "data", backbone, classes, images)
    side = backbone.config.image_resolution
    settings: dict[str, Any] = {
        "OUTPUT_DIR": str(folder / "run"),
        "SEED": 1,
        "TRAINER.NAME": "CoOp",
        "DATASET.ROOT": str(folder / "data"),
        "DATASET.NAME": "Caltech101",
        "DATASET.NUM_SHOTS": 1,
        "DEVICE": "cpu",
        "DATALOADER.NUM_WORKERS": 0,
        "DATALOADER.TRAIN_X.BATCH_SIZE": 10,
        "DATALOADER.TEST.BATCH_SIZE": 100,
        "INPUT.SIZE": (side, side),
        "INPUT.PIXEL_MEAN": list(backbone.pixel_mean),
        "INPUT.PIXEL_STD": list(backbone.pixel_std),
        "MODEL.BACKBONE.NAME": _weights_file(backbone, folder),
        "MODEL.CLIP.TEXT_HEADS": backbone.text_heads,
        "MODEL.CLIP.VISION_HEADS": backbone.vision_heads,
        "OPTIM.NAME": "sgd",
        "OPTIM.LR": 0.002,
        "OPTIM.MAX_EPOCH": 1,
        "TRAINER.COOP.N_CTX": N_CTX,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        run_experiment(load_config(flag_overrides=settings))
    return folder / "run"


def _call(threads: int, *arguments: str) -> tuple[float, str]:
    """Return the seconds and output of a Python process in the checkout."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return time.perf_counter() - start, done.stdout


def _time_study(run_dir: Path, grid: CorruptionGrid) -> tuple[float, Study]:
    """Return the seconds of a study whose uncorrupted prompt is already tested, and its results."""
    study_file(run_dir).unlink(missing_ok=True)
    run = StudiedRun(run_dir)
    run.study(CorruptionGrid((), ()))
    start = time.perf_counter()
    study = run.study(grid)
    return time.perf_counter() - start, study


def _command(run_dir: Path, grid: CorruptionGrid, threads: int, cached: bool) -> float:
    """Return the seconds of a whole process of nemesis low-norm."""
    study_file(run_dir).unlink()
    if not cached:
        for path in (run_dir.parent / "data" / "features").iterdir():
            path.unlink()
    flags = ["--replace", "--rescale", *map(str, grid.rescale)]
    flags += ["--positions", *map(str, grid.positions or range(N_CTX))]
    output = ("--output", str(run_dir.parent / "low_norm"))
    return _call(threads, "nemesis low-norm", str(run_dir), *flags, *output)[0]


def measure(
    backbone: Backbone,
    classes: int,
    repetitions: int,
    threads: int,
    images: int = TEST_IMAGES,
    grid: CorruptionGrid = GRID,
) -> Cost:
    """Measure both sides alternately on one finished run.

    Args:
        backbone: random weights of an architecture, or a file.
        classes: C.
        repetitions: repetitions per side.
        threads: PyTorch's threads.
        images: size of the test set.
        grid: values of RESCALE and positions.
    """
    corruptions = grid.corruptions(N_CTX)
    reference, repository, differences = [], [], []
    with TemporaryDirectory() as name, tqdm(total=repetitions, disable=None) as bar:
        run_dir = make_run(backbone, classes, images, Path(name))
        for number in range(repetitions):
            seconds, study = _time_study(run_dir, grid)
            repository.append(seconds / len(corruptions))
            one = corruptions[number * len(corruptions) // repetitions]
            process = ("benchmarks.cost.reference_process", str(run_dir))
            seconds, output = _call(threads, "-m", *process, str(one.position), str(one.value))
            reference.append(seconds)
            differences.append(abs(int(output.split()[-1]) - study.entries[one]["correct"]))
            bar.update()
        cached, first = (_command(run_dir, grid, threads, cached) for cached in (True, False))
    return Cost(
        plain=statistics.median(reference),
        ours=statistics.median(repository),
        command=cached / len(corruptions),
        first_command=first / len(corruptions),
        difference=max(differences),
    )


def report(cost: Cost, folder: Path, settings: Mapping[str, Any]) -> str:
    """Write corruption.md and corruption.json to the folder and return the Markdown."""
    count = len(GRID.corruptions(N_CTX))
    rows = {
        "one process per corruption, 77 tokens": cost.plain,
        "this repository, one pass": cost.ours,
        f"whole nemesis low-norm / {count}": cost.command,
        f"whole nemesis low-norm / {count}, no cached features": cost.first_command,
    }
    table = tabulate(
        [[title, f"{taken:.3g}", f"{cost.plain / taken:.3g}"] for title, taken in rows.items()],
        ["a corrupted prompt", "seconds", "speed-up over the reference"],
        tablefmt="github",
        disable_numparse=True,
    )
    met = "yes" if cost.ratio >= TARGET else "no"
    measured_with = ", ".join(f"{key} {value}" for key, value in settings.items())
    text = "\n\n".join(
        [
            "# Cost of a corrupted prompt",
            f"Measured with {measured_with}.",
            table,
            f"Target: reference / this repository >= {TARGET:g}; measured {cost.ratio:.3g}; "
            f"met: {met}.",
            NOTES.format(count=count),
            f"The sides' counts of correct images differ by at most {cost.difference}.",
        ]
    )
    write_atomic(folder / "corruption.md", lambda path: path.write_text(text + "\n", "utf-8"))
    contents = {**asdict(cost), "ratio": cost.ratio, "target": TARGET, "settings": dict(settings)}
    write_json(contents, folder / "corruption.json")
    return text
