"""`make demo`: compare zero-shot CLIP, CoOp and Nemesis on the bundled images.

Writes a table and a figure, then corrupts each vector of one learned prompt (the Low-Norm Effect).
The runs are those of a file in configs/sweeps/; a second call skips finished runs.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from dassl.utils import Parser, exit_code
from nemesis.commands import low_norm
from nemesis.report.figures import plot_accuracy_over_shots
from nemesis.report.results import accuracy_table, collect_runs, summarise
from nemesis.report.scores import seeds_name
from nemesis.sweeps.command import resolve_sweep, run_sweep
from nemesis.sweeps.runs import Run
from safeio.files import write_atomic

ROOT = Path(__file__).parent.parent


def write_report(folder: Path, sweep_file: Path, runs: Sequence[Run]) -> str:
    """Draw the figure, write report.md and return the table."""
    results = [found for run in runs for found in collect_runs(run.folder)]
    cells = summarise(results)
    shots = sorted({run.shots for run in runs if run.shots})
    seeds = {run.config["SEED"] for run in runs}
    table = accuracy_table(cells, shots)
    plot_accuracy_over_shots(cells, shots, folder / "accuracy_over_shots.png")
    views = max(found.get("train_views", 0) for found in results)
    lines = [
        "# Soft-prompt tuning on the bundled images",
        f"Test accuracy in %, mean ± standard deviation over {seeds_name(len(seeds))}; "
        f"bundled tiny CLIP, PyTorch {torch.__version__} on {platform.machine()}, "
        f"{os.cpu_count()} cores. "
        + (f"Trained on {views} cached augmentations of each image." if views else ""),
        table,
        "![accuracy over shots](accuracy_over_shots.png)",
        "To repeat the runs:",
        f"    python -m nemesis sweep {os.path.relpath(sweep_file)} --output-dir DIR",
    ]
    text = "\n\n".join(lines) + "\n"
    write_atomic(folder / "report.md", lambda path: path.write_text(text, encoding="utf-8"))
    return table


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and return the exit code of its sweep, or of the study of corruptions."""
    name = "demo_quick" if arguments.quick else "demo_table" if arguments.table else "demo"
    sweep_file = ROOT / f"configs/sweeps/{name}.yaml"
    sweep = resolve_sweep(sweep_file, output=arguments.output_dir)
    print(f"{len(sweep.left)} runs, then a table and a figure ...", flush=True)
    start = time.perf_counter()
    code = run_sweep(sweep)
    if code:
        return code
    folder = sweep.runs[0].output
    print(write_report(folder, sweep_file, sweep.runs))
    print(f"\n{len(sweep.left)} runs in {time.perf_counter() - start:.0f} s")
    print(f"Report and figure: {folder / 'report.md'}, {folder / 'accuracy_over_shots.png'}\n")
    studied = next(run.folder for run in sweep.runs if (run.method, run.shots) == ("CoOp", 1))
    print(f"Replacing or rescaling each vector of the prompt in {studied} ...")
    return low_norm.main([str(studied), "--output", str(folder / "low_norm")])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = Parser(__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="one task, 1 and 4 shots")
    size.add_argument(
        "--table",
        action="store_true",
        help="the README's table: three seeds, with PLOT and CoCoOp; half an hour",
    )
    parser.add_argument("--output-dir", type=Path, help="output folder")
    return exit_code(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
