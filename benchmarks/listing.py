"""Benchmark listing ImageNet's images, and loading them from the cached listing.

    python -m benchmarks.listing --files 100000
    python -m benchmarks.listing --files 1281167 --kept-only

Makes a tree like ImageNet's from empty files in a temporary folder: 1,000 classes with --files
training files in total and one test file each. Each row is a new process that builds the ImageNet
dataset; its peak memory includes the libraries. The file names are in the system's cache: listing a
cold or network disk is slower, loading the cached listing is not. With --kept-only, the files are
not created, only their names are written to the cached listing.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from dassl.config import load_config
from dassl.data.datasets import build_dataset
from dassl.data.datasets.listing import write_listing
from dassl.utils import Parser, exit_code
from datasets.imagenet import CLASSNAMES, read_classnames
from safeio.errors import UserError

ROOT = Path(__file__).parent.parent
IMAGENET = 1_281_167  # training images
LONG_AGO = 1_000_000_000  # seconds; recently changed folders are not cached


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(__doc__)
    parser.add_argument("--files", type=int, default=100_000, help="total training files")
    parser.add_argument("--kept-only", action="store_true", help="write only the cached listing")
    parser.add_argument("--load", help=argparse.SUPPRESS)  # for the new processes
    parser.add_argument("--shots", type=int, default=-1, help=argparse.SUPPRESS)
    return parser


def make_tree(imagenet: Path, count: int, kept_only: bool) -> None:
    """Make class folders with `count` training files in total and one test file per class."""
    entries = {}
    wnids = list(read_classnames(CLASSNAMES))
    for number, wnid in enumerate(wnids):
        indices = range(number * count // len(wnids), (number + 1) * count // len(wnids))
        names = [f"{wnid}_{index}.JPEG" for index in indices]
        train, val = (imagenet / "images" / part / wnid for part in ("train", "val"))
        for folder, files in ((train, () if kept_only else names), (val, ("val.JPEG",))):
            folder.mkdir(parents=True)
            for file in files:
                (folder / file).touch()
            os.utime(folder, (LONG_AGO, LONG_AGO))
        entries[wnid] = (LONG_AGO * 10**9, sorted(names))
    if kept_only:
        write_listing(entries, imagenet / "listing_train.json.gz")


def load(root: str, shots: int) -> None:
    """Build the dataset in this process and print its cost as JSON."""
    opts = ["DATASET.NAME", "ImageNet", "DATASET.ROOT", root, "DATASET.NUM_SHOTS", str(shots)]
    cfg = load_config(opts=[*opts, "SEED", "1", "VERBOSE", "False"])
    libraries = peak_memory()
    start, start_cpu = time.perf_counter(), time.process_time()
    dataset = build_dataset(cfg)
    costs = {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - start_cpu,
        "peak": peak_memory(),
        "libraries": libraries,
        "images": len(dataset.train_x),
    }
    print(json.dumps(costs))


def peak_memory() -> float:
    """Return the process's peak resident memory in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # not inherited from the parent process, unlike getrusage's
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def measure(root: Path, shots: int = -1) -> dict[str, float]:
    """Return the cost of building the dataset in a new process."""
    command = [sys.executable, "-m", "benchmarks.listing"]
    command += ["--load", str(root), "--shots", str(shots)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def run(arguments: argparse.Namespace) -> None:
    """Make the tree, measure and print.

    Raises:
        UserError: --files is below the number of classes.
    """
    if arguments.load:
        load(arguments.load, arguments.shots)
        return
    if arguments.files < 1000:
        raise UserError(f"--files is {arguments.files}, but must be at least 1000, one per class")
    with tempfile.TemporaryDirectory() as temporary:
        imagenet = Path(temporary) / "imagenet"
        make_tree(imagenet, arguments.files, arguments.kept_only)
        rows = {} if arguments.kept_only else {"list and cache": measure(imagenet.parent)}
        rows["load cache"] = measure(imagenet.parent)
        rows["load cache, sample 16 shots"] = measure(imagenet.parent, 16)
        rows["load cache, load 16 shots"] = measure(imagenet.parent, 16)
        size = (imagenet / "listing_train.json.gz").stat().st_size / 2**20
    report(rows, arguments.files, size)


def report(rows: dict[str, dict[str, float]], files: int, size: float) -> None:
    """Print the measurements, and the CPU time scaled to ImageNet's number of files."""
    scale = IMAGENET / files
    table = [
        [
            name,
            row["seconds"],
            row["cpu"],
            row["cpu"] * scale,
            row["peak"],
            row["peak"] - row["libraries"],
        ]
        for name, row in rows.items()
    ]
    print(f"{files:,} files in 1000 folders; the cached listing has {size:.2f} MiB")
    headers = ["", "seconds", "CPU s", f"CPU s for {IMAGENET:,}", "peak MiB", "above libraries"]
    print(tabulate(table, headers=headers, floatfmt=("", ".2f", ".2f", ".2f", ".0f", ".0f")))
    if "list and cache" in rows:
        ratio = rows["list and cache"]["seconds"] / rows["load cache"]["seconds"]
        print(f"list / load cache: {ratio:.1f}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return exit_code(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
