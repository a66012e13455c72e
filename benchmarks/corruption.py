"""Compare the cost of a corrupted prompt: one process each, as in published code, or one pass.

The benchmark trains CoOp on a dataset in CoOp's layout (with noise as images), processes that
test one corrupted prompt each (`reference_process`), and the study of nemesis low-norm.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tqdm import tqdm

from clip.weights import RANDOM_PREFIX
from dassl.config import load_config
from dassl.engine import run_experiment
from nemesis.low_norm.corruption import CorruptionGrid
from nemesis.low_norm.study import StudiedRun, Study, study_file
from safeio.errors import UserError

from .cost import add_measuring_flags, check
from .report import Report, environment, measured_with, table
from .synthetic import N_CTX, Backbone, class_names

ROOT = Path(__file__).parent.parent
TEST_IMAGES = 200
GRID = CorruptionGrid(replace=(), rescale=(0.1, 0.5), positions=tuple(range(10)))
CORRUPTIONS = GRID.corruptions(N_CTX)
COUNT = len(CORRUPTIONS)
TARGET = 100.0
COLUMNS = ("a corrupted prompt", "seconds", "speed-up over the reference")
NOTES = f"""\
Reference: a process per corruption starts Python, loads CLIP, decodes and encodes the test set,
encodes the prompts over 77 tokens and counts; median over several processes. This repository: the
study of {COUNT} corruptions of the same finished run with cached image features, per corruption.
The other rows are whole processes of nemesis low-norm, including start-up, divided by the {COUNT}
corruptions; the full study of a prompt has 160."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument("--classes", nargs=1, type=int, metavar="C", help="default 100")
    add_measuring_flags(parser.add_argument)
    parser.set_defaults(device="cpu")


def run(arguments: argparse.Namespace) -> Report:
    """Measure both sides on the CPU.

    Raises:
        UserError: a number is too small, several backbones or another device are requested, or a
            backbone is unknown.
    """
    device, names = check(arguments), arguments.backbones or ["RN50"]
    if len(names) > 1 or device.type != "cpu":
        raise UserError("corruption measures one backbone, on the CPU; leave the others out")
    backbone, classes = Backbone.find(names[0]), (arguments.classes or [100])[0]
    repetitions, threads = arguments.repetitions or 3, arguments.threads
    settings = {"backbone": backbone.name, "classes": classes, "test images": TEST_IMAGES}
    settings |= environment(device, threads=threads, repetitions=repetitions)
    torch.set_num_threads(threads)
    cost = measure(backbone, classes, repetitions, threads)
    titles = {
        "plain": "one process per corruption, 77 tokens",
        "ours": "this repository, one pass",
        "command": f"whole nemesis low-norm / {COUNT}",
        "first_command": f"whole nemesis low-norm / {COUNT}, no cached features",
    }
    rows = [[title, cost[key], cost["plain"] / cost[key]] for key, title in titles.items()]
    ratio = cost["plain"] / cost["ours"]
    parts = [
        "# Cost of a corrupted prompt",
        measured_with(settings),
        table("corruption", "Seconds of a corrupted prompt", COLUMNS, rows),
        f"Target: reference / this repository >= {TARGET:g}; measured {ratio:.3g}; met: "
        f"{'yes' if ratio >= TARGET else 'no'}.",
        NOTES,
        f"The sides' counts of correct images differ by at most {cost['difference']:g}.",
    ]
    contents = {**cost, "ratio": ratio, "target": TARGET, "settings": settings}
    return Report("corruption", parts, contents)


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


def _time_study(run_dir: Path) -> tuple[float, Study]:
    """Return the seconds of a study whose uncorrupted prompt is already tested, and its results."""
    study_file(run_dir).unlink(missing_ok=True)
    run = StudiedRun(run_dir)
    run.study(CorruptionGrid((), ()))
    start = time.perf_counter()
    study = run.study(GRID)
    return time.perf_counter() - start, study


def _time_command(run_dir: Path, threads: int) -> float:
    """Return the seconds of a whole process of nemesis low-norm."""
    study_file(run_dir).unlink()
    flags = ["--replace", "--rescale", *map(str, GRID.rescale)]
    flags += ["--positions", *map(str, GRID.positions or ())]
    output = ("--output-dir", str(run_dir.parent / "low_norm"))
    return _call(threads, "-m", "nemesis", "low-norm", str(run_dir), *flags, *output)[0]


def measure(backbone: Backbone, classes: int, repetitions: int, threads: int) -> dict[str, float]:
    """Measure both sides alternately on one finished run.

    Returns:
        Seconds per corruption of the reference (`plain`), one study of this repository (`ours`), a
        whole process of nemesis low-norm (`command`), the same without cached image features
        (`first_command`), and the largest `difference` between the counts of correct images.
    """
    reference, repository, differences = [], [], []
    with TemporaryDirectory() as name, tqdm(total=repetitions, disable=None) as bar:
        run_dir = make_run(backbone, classes, TEST_IMAGES, Path(name))
        for number in range(repetitions):
            seconds, study = _time_study(run_dir)
            repository.append(seconds / COUNT)
            one = CORRUPTIONS[number * COUNT // repetitions]
            process = ("-m", "benchmarks.reference_process", str(run_dir))
            seconds, output = _call(threads, *process, str(one.position), str(one.value))
            reference.append(seconds)
            differences.append(abs(int(output.split()[-1]) - study.entries[one]["correct"]))
            bar.update()
        cached = _time_command(run_dir, threads)
        for path in (run_dir.parent / "data" / "features").iterdir():
            path.unlink()
        first = _time_command(run_dir, threads)
    return {
        "plain": median(reference),
        "ours": median(repository),
        "command": cached / COUNT,
        "first_command": first / COUNT,
        "difference": max(differences),
    }
