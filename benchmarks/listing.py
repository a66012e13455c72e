"""Benchmark listing ImageNet's images, and loading them from the cached listing.

Makes a tree like ImageNet's from empty files in a temporary folder: 1,000 classes with --files
training files in total and one test file each. Each row is a new process that builds the ImageNet
dataset; its peak memory includes the libraries. The file names are in the system's cache: listing a
cold or network disk is slower, loading the cached listing is not. With --cache-only, the files are
not created, only their names are written to the cached listing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from dassl.config import load_config
from dassl.data.datasets import build_dataset
from dassl.data.datasets.listing import write_listing
from datasets.imagenet import CLASSNAMES, read_classnames
from safeio.errors import UserError

from .report import Report, environment, measured_with, process_status, table

ROOT = Path(__file__).parent.parent
IMAGENET = 1_281_167  # training images
LONG_AGO = 1_000_000_000  # seconds; recently changed folders are not cached
LISTING = "listing_train.json.gz"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument("--files", type=int, default=100_000, help="total training files")
    parser.add_argument("--cache-only", action="store_true", help="write only the cached listing")


def make_tree(imagenet: Path, count: int, cache_only: bool) -> None:
    """Make class folders with `count` training files in total and one test file per class."""
    entries = {}
    wnids = list(read_classnames(CLASSNAMES))
    for number, wnid in enumerate(wnids):
        indices = range(number * count // len(wnids), (number + 1) * count // len(wnids))
        names = [f"{wnid}_{index}.JPEG" for index in indices]
        train, val = (imagenet / "images" / part / wnid for part in ("train", "val"))
        for folder, files in ((train, () if cache_only else names), (val, ("val.JPEG",))):
            folder.mkdir(parents=True)
            for file in files:
                (folder / file).touch()
            os.utime(folder, (LONG_AGO, LONG_AGO))
        entries[wnid] = (LONG_AGO * 10**9, sorted(names))
    if cache_only:
        write_listing(entries, imagenet / LISTING)


def load(root: str, shots: str) -> dict[str, float]:
    """Build the dataset in this process, which must be new, and return its cost."""
    opts = ["DATASET.NAME", "ImageNet", "DATASET.ROOT", root, "DATASET.NUM_SHOTS", shots]
    cfg = load_config(opts=[*opts, "SEED", "1", "VERBOSE", "False"])
    libraries = process_status("VmHWM")
    start, start_cpu = time.perf_counter(), time.process_time()
    dataset = build_dataset(cfg)
    return {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - start_cpu,
        "peak": process_status("VmHWM") / 2**20,
        "libraries": libraries / 2**20,
        "images": len(dataset.train_x or []),
    }


def measure(root: Path, shots: int = -1) -> dict[str, float]:
    """Return the cost of building the dataset in a new process."""
    command = [sys.executable, "-m", "benchmarks.listing", str(root), str(shots)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(arguments: argparse.Namespace) -> Report:
    """Make the tree and measure.

    Raises:
        UserError: --files is below the number of classes.
    """
    files = arguments.files
    if files < 1000:
        raise UserError(f"--files is {files}, but must be at least 1000, one per class")
    settings = environment(torch.device("cpu"))
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        imagenet = root / "imagenet"
        make_tree(imagenet, files, arguments.cache_only)
        if not arguments.cache_only:
            rows["list and cache"] = measure(root)
        rows["load cache"] = measure(root)
        rows["load cache, 16 shots"] = measure(root, 16)
        rows["16 shots again"] = measure(root, 16)
        size = (imagenet / LISTING).stat().st_size / 2**20
    scale = IMAGENET / files
    shown: list[list[Any]] = [
        [name, r["seconds"], r["cpu"], r["cpu"] * scale, r["peak"], r["peak"] - r["libraries"]]
        for name, r in rows.items()
    ]
    titles = ["", "seconds", "CPU s", f"CPU s for {IMAGENET:,}", "peak MiB", "above libraries"]
    text = f"{files:,} files in 1000 folders; the cached listing has {size:.2f} MiB."
    caption = f"{text} {measured_with(settings)}"
    parts = [table("listing", "Listing ImageNet", titles, shown, caption)]
    return Report("listing", parts, {"files": files, "settings": settings, "rows": rows})


if __name__ == "__main__":
    print(json.dumps(load(sys.argv[1], sys.argv[2])))
