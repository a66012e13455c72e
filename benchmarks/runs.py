"""Benchmark whole runs on the bundled benchmark, with one thread: sweep and soak.

sweep: a process of `train.py` per run against a worker of `nemesis sweep`, from the command line to
the last results.json, and the start-up of a run in a worker (from its configuration to its first
step, with CLIP and data loaded).
soak: memory, open files and threads of a worker's process after each of many runs. The slope is
that of a regression over the runs after the warm-up (a quarter of the runs, at least five).

Images and features are made beforehand, in runs that are not measured.
"""

import argparse
import contextlib
import gc
import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

import torch
import yaml

from dassl.engine import run_experiment
from dassl.utils import reuse_loaded
from nemesis.sweeps.command import resolve_sweep
from nemesis.sweeps.runs import Run
from nemesis.sweeps.worker import DONE, CleanState, work
from safeio.errors import UserError

from .report import STATUS, Report, environment, measured_with, process_status, table

ROOT = Path(__file__).parent.parent
BETAS = {"CoOp": None, "CoOp+PUN": 1.0, "CoOp+PAN": 0.0, "CoOp+PUN+PAN": 0.5}
CPU = torch.device("cpu")


def sweep_runs(
    folder: Path, root: Path, methods: Sequence[str], count: int, config: str, **keys: Any
) -> tuple[Path, list[Run]]:
    """Write a sweep file to a folder and return it with its first `count` runs.

    The methods are keys of `BETAS`; the keys are settings with __ for dots, and SHOTS.
    """
    nemesis = {
        name: {"trainer": "CoOpNemesis", "set": {"TRAINER.NEMESIS.BETA": beta}}
        for name, beta in BETAS.items()
        if beta is not None
    }
    content = {
        "output": str(folder / "runs"),
        "datasets": ["emoji_activities"],
        "shots": [keys.pop("SHOTS", 1)],
        "seeds": list(range(1, 1 + -(-count // len(methods)))),
        "config": config,
        "methods": {name: nemesis.get(name) for name in methods},
        "set": {"DATASET.ROOT": str(root.absolute())}
        | {key.replace("__", "."): value for key, value in keys.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path, resolve_sweep(path).runs[:count]


def check(arguments: argparse.Namespace, *names: str, least: int = 1) -> None:
    """Raise a UserError if one of these numbers is too small."""
    for name in names:
        value = getattr(arguments, name)
        if min(value if isinstance(value, list) else [value]) < least:
            raise UserError(f"--{name} is {value}, but must be at least {least}")


def add_root(add: Callable[..., Any]) -> None:
    """Add --root."""
    add("--root", type=Path, default=ROOT / "data", metavar="DIR", help="data root (default: data)")


def do_runs(task: Sequence[Run], state: CleanState) -> None:
    """Execute runs as a worker does: several as one batch. Raises a UserError if one fails."""
    for outcome in work(tuple(task), state):
        if outcome.status != DONE:
            raise UserError(f"{outcome.run.name}: {outcome.status} {outcome.reason}")


def add_sweep_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the section `sweep`."""
    parser.add_argument("--runs", type=int, default=12, help="number of runs (default 12)")
    parser.add_argument("--epochs", type=int, default=1, help="epochs per run (default 1)")
    add_root(parser.add_argument)


def run_sweep(arguments: argparse.Namespace) -> Report:
    """Measure runs in their own processes and in a worker."""
    check(arguments, "runs", "epochs")
    methods = ("CoOp", "CoOp+PUN", "CoOp+PAN")
    settings = {"OPTIM__MAX_EPOCH": arguments.epochs, "INPUT__TRAIN_VIEWS": 4}
    load = environment(CPU, threads=1)
    with tempfile.TemporaryDirectory() as name:
        places = [Path(name) / part for part in ("one_by_one", "swept", "started")]
        resolved = [
            sweep_runs(place, arguments.root, methods, arguments.runs, "mini", **settings)
            for place in places
        ]
        _one_by_one(resolved[0][1][:1], places[0] / "warm_up")
        separate = _one_by_one(resolved[0][1], places[0])
        swept = _launch(
            "-m", "nemesis", "sweep", resolved[1][0], "--workers", 1, "--limit", arguments.runs
        )
        starts = _start_ups(resolved[2][1])
    contents = {
        "runs": arguments.runs,
        "epochs": arguments.epochs,
        "train_py_seconds": separate,
        "sweep_py_seconds": swept,
        "ratio": separate / swept,
        "start_up_seconds": {"median": median(starts), "max": max(starts)},
        "settings": load,
    }
    names = ["train.py for each run, s", "nemesis sweep --workers 1, s", "ratio"]
    names += ["start-up in a worker, median, s", "start-up in a worker, max, s"]
    values = (separate, swept, separate / swept, median(starts), max(starts))
    title = f"{arguments.runs} runs of {arguments.epochs} epochs"
    rows = list(zip(names, values, strict=True))
    shown = table("sweep", title, ["", "measured"], rows, measured_with(load))
    return Report("sweep", [shown], contents)


def _launch(*command: object) -> float:
    """Run a Python command with one thread; return its seconds, or raise a UserError."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it printed no error"]
        raise UserError(f"{' '.join(map(str, command))} failed: {last[0]}")
    return time.perf_counter() - start


def _one_by_one(runs: Sequence[Run], folder: Path) -> float:
    """Return the seconds of one process of `train.py` per run."""
    folder.mkdir(parents=True, exist_ok=True)
    commands = []
    for number, run in enumerate(runs):
        file = folder / f"run{number}.yaml"
        file.write_text(yaml.safe_dump(run.config))
        commands.append(("--config-file", file, "--output-dir", folder / file.stem))
    return sum(_launch("train.py", *command) for command in commands)


def _start_ups(runs: Sequence[Run]) -> list[float]:
    """Return each run's seconds from configuration to first step, after a warm-up run."""
    seconds, state = [], CleanState(1)
    with reuse_loaded(), contextlib.redirect_stdout(io.StringIO()):
        for run in [runs[0], *runs]:
            state.restore()
            start = time.perf_counter()
            run_experiment(run.cfg(), train=False)
            seconds.append(time.perf_counter() - start)
    return seconds[1:]


def add_soak_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the section `soak`."""
    parser.add_argument("--runs", type=int, default=200, help="number of runs (default 200)")
    add_root(parser.add_argument)


def run_soak(arguments: argparse.Namespace) -> Report:
    """Measure the resources of a process after each run."""
    check(arguments, "runs", least=10)
    if not STATUS.is_file():
        raise UserError("soak needs Linux, which reports memory and open files of a process")
    with tempfile.TemporaryDirectory() as folder:
        found = soak(arguments.runs, arguments.root, Path(folder))
    first = found["warm_up"] - 1
    rows = [
        [name, found[name][first], found[name][-1]] for name in ("memory", "handles", "threads")
    ]
    titles = ["", f"after run {first + 1}", f"after run {arguments.runs}"]
    slope = f"Memory is in MiB; it grows by {1024 * found['slope_mib']:+.1f} KiB per run."
    return Report("soak", [table("soak", "Many runs in one process", titles, rows, slope)], found)


def soak(runs: int, root: Path, folder: Path) -> dict[str, Any]:
    """Execute runs one after the other and remove them.

    Returns:
        Lists `memory` (resident, MiB), `handles` (open files) and `threads` after each run, the
        number of runs `warm_up` that are ignored, and `slope_mib` after them.
    """
    settings = {"OPTIM__MAX_EPOCH": 1, "INPUT__TRAIN_VIEWS": 1}
    methods = ("CoOp", "CoOp+PAN")
    _, resolved = sweep_runs(folder, root, methods, runs, "mini_ctx16", **settings)
    state = CleanState(torch.get_num_threads())
    found: dict[str, list[Any]] = {"memory": [], "handles": [], "threads": []}
    with reuse_loaded():
        for run in resolved:
            do_runs([run], state)
            shutil.rmtree(run.folder)
            gc.collect()
            found["memory"].append(process_status("VmRSS") / 2**20)
            found["handles"].append(sum(1 for _ in Path("/proc/self/fd").iterdir()))
            found["threads"].append(threading.active_count())
    warm_up = max(5, runs // 4)
    slope = linear_regression(range(runs - warm_up), found["memory"][warm_up:]).slope
    return {**found, "warm_up": warm_up, "slope_mib": slope}
