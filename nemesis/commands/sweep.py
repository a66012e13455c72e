r"""Run a sweep: the grid of runs that a sweep file describes.

    python -m nemesis sweep configs/sweeps/demo.yaml --dry-run
    python -m nemesis sweep configs/sweeps/demo.yaml --workers 2

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
from nemesis.sweeps.command import add_set_flag, describe_sweep, resolve_sweep, run_sweep
from nemesis.sweeps.sweep_file import PAPER
from safeio.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = Parser(__doc__, "sweep")
    add = parser.add_argument
    add("sweep", metavar="SWEEP.yaml", help="such as configs/sweeps/demo.yaml")
    add("--bench", default=PAPER, help="paper (default), or a profile under the file's bench")
    add("--root", help="folder of the datasets (default: data)")
    add("--output-dir", type=Path, help="folder of all runs (default: the file's output)")
    add("--dry-run", action="store_true", help="list the runs and estimate their time")
    text = "only runs whose names start with NAME, which may contain *"
    add("--only", action="append", default=[], metavar="NAME", help=text)
    add("--limit", type=int, metavar="N", help="execute at most N runs")
    text = "runs at a time (default: one per GPU, else per core); 0: run in this process"
    add("--workers", "-w", type=int, metavar="N", help=text)
    text = "train up to K runs of one dataset and method family as a run group (default: 1)"
    add("--vectorise", type=int, default=1, metavar="K", help=text)
    add("--cluster", metavar="ADDRESS", help="use a Ray cluster, such as auto")
    add("--gpus-per-run", type=float, default=0.0, metavar="N", help="on the cluster, such as 0.25")
    add_set_flag(parser, "a setting for all runs, which overrides the file's")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run the sweep, or list its runs.

    Raises:
        UserError: see `nemesis.sweeps.command.resolve_sweep`.
    """
    for flag, least in (("limit", 0), ("workers", 0), ("gpus_per_run", 0), ("vectorise", 1)):
        value = getattr(arguments, flag)
        if value is not None and value < least:
            raise UserError(f"--{flag.replace('_', '-')} is {value}, but must be at least {least}")
    sweep = resolve_sweep(
        arguments.sweep,
        arguments.bench,
        arguments.output_dir,
        arguments.root,
        dict(arguments.set),
        arguments.only,
    )
    if arguments.dry_run:
        print(describe_sweep(sweep, arguments.workers))
        return 0
    cluster = None
    if arguments.cluster is not None:
        cluster = partial(RayExecutor, arguments.cluster, gpus=arguments.gpus_per_run)
    return run_sweep(sweep, arguments.workers, arguments.limit, cluster, arguments.vectorise)


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(run, build_parser(), argv)
