"""`make demo`: compare zero-shot CLIP, CoOp and Nemesis on the bundled images.

Runs a file of configs/sweeps/, corrupts each vector of one learned prompt (the Low-Norm Effect),
and ends with the report of the runs. A second call skips finished runs.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dassl.utils import Parser, exit_code
from nemesis.commands import low_norm
from nemesis.commands.report import report_sweep
from nemesis.report.building import Options
from nemesis.sweeps.command import resolve_sweep, run_sweep


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and return the exit code of its first failed step, or 0."""
    name = "demo_quick" if arguments.quick else "demo_table" if arguments.table else "demo"
    sweep = resolve_sweep(name, output=arguments.output_dir)
    folder = sweep.runs[0].output
    print(f"{len(sweep.left)} runs, then their report ...", flush=True)
    start = time.perf_counter()
    code = run_sweep(sweep)
    if code:
        return code
    print(f"{len(sweep.left)} runs in {time.perf_counter() - start:.0f} s\n")
    studied = next(run.folder for run in sweep.runs if (run.method, run.shots) == ("CoOp", 1))
    print(f"Replacing or rescaling each vector of the prompt in {studied} ...")
    code = low_norm.main([str(studied), "--output", str(folder / "low_norm")])
    finished = resolve_sweep(name, output=arguments.output_dir)
    return report_sweep(finished, Options(folders=(), output=folder / "report")) or code


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
