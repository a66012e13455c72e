"""Benchmark runs in a worker of `nemesis sweep` against a process of `train.py` for each run.

    python -m benchmarks.sweep
    python -m benchmarks.sweep --runs 30 --epochs 14

The runs are seeds of CoOp and its Nemesis variants on the bundled benchmark, with one process and
one thread, measured from the command line to the last results.json. Images and features are made
beforehand in runs that are not measured. The start-up time of a run in a worker is from its
configuration to the first step (`--no-train`), with CLIP and data already loaded.
"""

import argparse
import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from dassl.engine import run_experiment
from dassl.utils import Parser, exit_code, package_versions, reuse_loaded
from nemesis.sweeps.command import resolve_sweep
from nemesis.sweeps.runs import Run
from safeio.errors import UserError
from safeio.files import write_json

ROOT = Path(__file__).parent.parent
NEMESIS = "CoOpNemesis"
METHODS: dict[str, Any] = {
    "CoOp": None,
    "CoOp+PUN": {"trainer": NEMESIS, "set": {"TRAINER.NEMESIS.BETA": 1.0}},
    "CoOp+PAN": {"trainer": NEMESIS, "set": {"TRAINER.NEMESIS.BETA": 0.0}},
}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--runs", type=int, default=12, help="number of runs (default 12)")
    add("--epochs", type=int, default=1, help="epochs per run (default 1)")
    add("--root", type=Path, default=ROOT / "data", help="data root (default: data)")
    output = Path("output/sweep_benchmark")
    add("--output-dir", type=Path, default=output, help=f"folder of the report (default {output})")
    return parser


def sweep_file(folder: Path, arguments: argparse.Namespace) -> Path:
    """Write the sweep file of the runs to a folder."""
    content = {
        "output": str(folder / "sweep"),
        "datasets": ["emoji_activities"],
        "shots": [1],
        "seeds": list(range(1, 1 + -(-arguments.runs // len(METHODS)))),
        "config": "mini",
        "methods": METHODS,
        "set": {
            "OPTIM.MAX_EPOCH": arguments.epochs,
            "INPUT.TRAIN_VIEWS": 4,
            "DATASET.ROOT": str(arguments.root),
        },
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def launch(*command: object) -> None:
    """Run one of the project's commands in a separate process.

    Raises:
        UserError: the command fails.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, *map(str, command)]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it printed no error"]
        raise UserError(f"{command[0]} failed: {last[0]}")


def one_by_one(runs: Sequence[Run], folder: Path) -> float:
    """Return the seconds of one `train.py` process per run."""
    files = []
    for number, run in enumerate(runs):
        files.append(folder / f"run{number}.yaml")
        files[-1].write_text(yaml.safe_dump(run.config))
    start = time.perf_counter()
    for file in files:
        launch("train.py", "--config-file", file, "--output-dir", folder / file.stem)
    return time.perf_counter() - start


def swept(file: Path, count: int) -> float:
    """Return the seconds of `nemesis sweep` for all runs."""
    start = time.perf_counter()
    launch("nemesis sweep", file, "--workers", 1, "--limit", count)
    return time.perf_counter() - start


def start_ups(runs: Sequence[Run]) -> list[float]:
    """Return each run's seconds from configuration to first step, after a warm-up run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = []
    with reuse_loaded(), contextlib.redirect_stdout(io.StringIO()):
        for number, run in enumerate([runs[0], *runs]):
            start = time.perf_counter()
            cfg = run.cfg().clone()
            cfg.defrost()
            cfg.OUTPUT_DIR = f"{run.folder}-{number}-not-trained"
            cfg.freeze()
            run_experiment(cfg, train=False)
            seconds.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return seconds[1:]


def run(arguments: argparse.Namespace) -> None:
    """Measure both, print the results and write them as JSON.

    Raises:
        UserError: a number is below 1, or a run fails.
    """
    if min(arguments.runs, arguments.epochs) < 1:
        raise UserError("--runs and --epochs must be at least 1")
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments.root = arguments.root.resolve()
        file = sweep_file(folder, arguments)
        runs = resolve_sweep(file).runs[: arguments.runs]
        (folder / "warm_up").mkdir()
        one_by_one(runs[:1], folder / "warm_up")
        separate, swept_seconds = one_by_one(runs, folder), swept(file, len(runs))
        seconds = start_ups(runs)
    found = {
        "runs": len(runs),
        "epochs": arguments.epochs,
        "train_py_seconds": separate,
        "sweep_py_seconds": swept_seconds,
        "ratio": separate / swept_seconds,
        "start_up_seconds": {"median": statistics.median(seconds), "max": max(seconds)},
        "cores": os.cpu_count(),
        "load_before": load,
        "versions": package_versions(),
    }
    print(f"{len(runs)} runs of {arguments.epochs} epochs, one thread, load {load:.1f} before:")
    print(f"train.py for each run        {separate:8.1f} s")
    print(f"nemesis sweep --workers 1         {swept_seconds:8.1f} s")
    print(f"ratio                        {separate / swept_seconds:8.2f}")
    print(f"start-up in a worker, median {statistics.median(seconds):8.3f} s")
    print(f"start-up in a worker, max    {max(seconds):8.3f} s")
    report = arguments.output_dir / "sweep_benchmark.json"
    write_json(found, report)
    print(f"JSON: {report}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return exit_code(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
