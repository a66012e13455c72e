r"""Run a sweep: the grid of runs that a sweep file describes.

    python -m nemesis sweep demo --dry-run
    python -m nemesis sweep table_4 --profile mini --report
    python -m nemesis sweep few_shot --datasets eurosat dtd --shots 1 16 --methods CoOp CoOpNemesis

The whole configuration identifies a run, and no finished run is repeated. Ctrl-C stops the sweep;
the same command resumes it.

Exit codes: 0 all runs are finished, 1 some failed (stderr lists them with the reason), 2 an error
in the command or its files, 130 stopped.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dassl.utils import Parser, exit_code
from nemesis.sweeps.cluster import RayExecutor
from nemesis.sweeps.command import STOPPED, Sweep, add_sweep_flags, resolve_sweep, run_sweep
from nemesis.sweeps.runs import State
from nemesis.sweeps.selection import add_selection_flags, selection_of
from safeio.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = Parser(__doc__, "sweep")
    add = parser.add_argument
    add("sweep", metavar="SWEEP", help="file of configs/sweeps without .yaml, or a path")
    add("--report", action="store_true", help="write the report of the finished runs at the end")
    add("--output-dir", type=Path, help="folder of all runs (default: the file's output)")
    add("--dry-run", action="store_true", help="list the runs and estimate their time")
    add("--folders", action="store_true", help="only print the folders of finished runs")
    text = "only runs whose names start with NAME, which may contain *"
    add("--only", action="append", default=[], metavar="NAME", help=text)
    add("--limit", type=int, metavar="N", help="execute at most N runs")
    text = "runs at a time (default: one per GPU, else per core); 0: run in this process"
    add("--workers", "-w", type=int, metavar="N", help=text)
    text = "train up to K runs of one dataset and method family as one batch (default: 1)"
    add("--batch", type=int, default=1, metavar="K", help=text)
    add("--cluster", metavar="ADDRESS", help="use a Ray cluster, such as auto")
    add("--gpus-per-run", type=float, default=0.0, metavar="N", help="on the cluster, such as 0.25")
    add_sweep_flags(parser)
    add_selection_flags(parser)
    return parser


def sweep_of(arguments: argparse.Namespace) -> Sweep:
    """Resolve the sweep of a command line.

    Raises:
        UserError: see `nemesis.sweeps.command.resolve_sweep`.
    """
    return resolve_sweep(
        arguments.sweep,
        arguments.profile,
        arguments.output_dir,
        arguments.root,
        dict(arguments.set),
        arguments.only,
        selection_of(arguments),
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the sweep, or list its runs.

    Raises:
        UserError: see `nemesis.sweeps.command.resolve_sweep`.
    """
    for flag, least in (("limit", 0), ("workers", 0), ("gpus_per_run", 0), ("batch", 1)):
        value = getattr(arguments, flag)
        if value is not None and value < least:
            raise UserError(f"--{flag.replace('_', '-')} is {value}, but must be at least {least}")
    sweep = sweep_of(arguments)
    if arguments.dry_run:
        print(sweep.describe(arguments.workers))
        return 0
    if arguments.folders:
        print(
            *(run.folder for run in sweep.runs if sweep.states[run.digest] is State.DONE), sep="\n"
        )
        return 0
    cluster = None
    if arguments.cluster is not None:
        cluster = partial(RayExecutor, arguments.cluster, gpus=arguments.gpus_per_run)
    code = run_sweep(sweep, arguments.workers, arguments.limit, cluster, arguments.batch)
    if arguments.report and code != STOPPED:
        from nemesis.commands import report  # imports Matplotlib

        arguments.only = []
        code = report.report_sweep(sweep_of(arguments)) or code
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(run, build_parser(), argv)
