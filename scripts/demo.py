"""`make demo`: zero-shot CLIP, CoOp and Nemesis on bundled pictures; a table and a figure.

It ends with one learned prompt whose vectors are corrupted in turn (the Low-Norm Effect). The runs
are those of a file in configs/sweeps/; finished ones are kept, so that it goes on where it was
stopped.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import corrupt
from analysis.figures import plot_accuracy_over_shots
from analysis.results import accuracy_table, collect_runs, summarise
from dassl.utils import Parser, exit_code
from safeio.files import write_atomic
from sweeps.command import carry_on, plan
from sweeps.runs import Run

HOUSE = Path(__file__).parent.parent


def write_report(folder: Path, sweep_file: Path, runs: Sequence[Run]) -> str:
    """Draw the figure and write report.md; returns the table."""
    results = [found for run in runs for found in collect_runs(run.folder)]
    cells = summarise(results)
    shots = sorted({run.shots for run in runs if run.shots})
    seeds = {run.config["SEED"] for run in runs}
    table = accuracy_table(cells, shots)
    plot_accuracy_over_shots(cells, shots, folder / "accuracy_over_shots.png")
    views = max(found["train_views"] for found in results)
    lines = [
        "# Soft prompts learning on the bundled pictures",
        f"Test accuracy in %, mean ± standard deviation over {len(seeds)} seed(s); "
        f"bundled tiny CLIP, PyTorch {torch.__version__} on {platform.machine()}, "
        f"{os.cpu_count()} cores. "
        + (f"Trained on {views} kept views of each picture." if views else ""),
        table,
        "![accuracy over shots](accuracy_over_shots.png)",
        "The runs can be made again with:",
        f"    python sweep.py {os.path.relpath(sweep_file)} --output-dir DIR",
    ]
    text = "\n\n".join(lines) + "\n"
    write_atomic(folder / "report.md", lambda path: path.write_text(text, encoding="utf-8"))
    return table


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; the exit code is that of its sweep."""
    name = "demo_quick" if arguments.quick else "demo_table" if arguments.table else "demo"
    sweep_file = HOUSE / f"configs/sweeps/{name}.yaml"
    sweep = plan(sweep_file, output=arguments.output_dir)
    print(f"{len(sweep.left)} runs, then a table and a figure ...", flush=True)
    start = time.perf_counter()
    code = carry_on(sweep)
    if code:
        return code
    folder = sweep.runs[0].output
    print(write_report(folder, sweep_file, sweep.runs))
    print(f"\n{len(sweep.left)} runs in {time.perf_counter() - start:.0f} s")
    print(f"Report and figure: {folder / 'report.md'}, {folder / 'accuracy_over_shots.png'}\n")
    studied = next(run.folder for run in sweep.runs if (run.method, run.shots) == ("CoOp", 1))
    print(f"Each vector of the prompt in {studied} replaced or rescaled in turn ...")
    return corrupt.main([str(studied), "--output", str(folder / "low_norm")])


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    parser = Parser(__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="one task, 1 and 4 shots")
    size.add_argument(
        "--table",
        action="store_true",
        help="the README's table: three seeds, PLOT and CoCoOp, too; half an hour",
    )
    parser.add_argument("--output-dir", type=Path, help="where to write")
    return exit_code(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
