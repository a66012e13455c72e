r"""The Low-Norm Effect of finished runs: every position of their prompts corrupted in one pass.

    python corrupt.py output/food/CoOp/16shots/seed*       # or a folder with runs below it
    python corrupt.py output/food --rescale 0.1 0.5 --positions 0 15 --output output/low_norm

Each run gets a `corruption.json`: accuracy and norm of the learned prompts, and with every vector
in turn replaced by noise (REPLACE) or multiplied by a factor (RESCALE). Positions count from 0. A
second call tests only what is missing. The folder --output gets the occurrence frequencies over the
seeds (Tables A2 and A3) and the figures 1b and A1.

Exit codes: 0 done, 1 a run could not be studied (the others were), 2 a mistake in the command.
"""

from dassl.startup import importing

with importing(__name__):
    import argparse
    import sys
    from collections.abc import Sequence
    from pathlib import Path

    import datasets  # noqa: F401  (registers the datasets)
    import trainers  # noqa: F401  (registers the methods)
    from analysis.corruption.figures import draw_figures
    from analysis.corruption.frequency import group_by_seed
    from analysis.corruption.runs import run_folders
    from analysis.corruption.study import FACTORS, STDS, Plan, Study, Subject, check_values
    from analysis.corruption.tables import write_tables
    from analysis.opening import add_ignore_flag
    from dassl.utils import Parser, exit_code
    from safeio.errors import UserError
    from safeio.files import prepare_output_dir
    from safeio.untrusted import printable

DEFAULT_OUTPUT = Path("output/low_norm")


def build_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN_DIR", help="a run, or a folder with runs below")
    add("--replace", nargs="*", type=float, default=STDS, metavar="STD", help=f"default {STDS}")
    add("--rescale", nargs="*", type=float, default=FACTORS, metavar="FACTOR", help="likewise")
    add("--positions", nargs="+", type=int, metavar="J", help="from 0; default all")
    add("--epoch", type=int, help="which checkpoint of the runs; default the best or the last")
    add("--noise-seed", type=int, default=0, help="what REPLACE's noise is drawn with; default 0")
    add("--root", default="", help="folder of the datasets; default the runs' own")
    add_ignore_flag(parser)
    add("--output", type=Path, default=DEFAULT_OUTPUT, help=f"default {DEFAULT_OUTPUT}")
    return parser


def make_plan(arguments: argparse.Namespace) -> Plan:
    """What the flags ask for.

    Raises:
        UserError: a value that a corruption cannot have.
    """
    check_values("--replace", arguments.replace)
    check_values("--rescale", arguments.rescale)
    for name in ("positions", "noise_seed", "epoch"):
        given = getattr(arguments, name)
        for number in given if isinstance(given, list) else [given]:
            if number is not None and number < 0:
                raise UserError(f"--{name.replace('_', '-')} is {number}, but counts from 0")
    positions = arguments.positions and tuple(sorted(set(arguments.positions)))
    return Plan(
        tuple(dict.fromkeys(arguments.replace)),
        tuple(dict.fromkeys(arguments.rescale)),
        positions,
        arguments.noise_seed,
    )


def study_runs(arguments: argparse.Namespace, plan: Plan) -> tuple[list[Study], int]:
    """Study every run, one sentence for each that cannot be.

    Returns:
        The studies, and how many runs there are none of.
    """
    studies, failed = [], 0
    for run_dir in run_folders(arguments.runs):
        try:
            subject = Subject(run_dir, arguments.root, arguments.ignore_mismatch)
            study = subject.study(plan, arguments.epoch)
        except UserError as error:
            failed += 1
            print(printable(f"error: {run_dir}: {error}"), file=sys.stderr)
            continue
        studies.append(study)
        better = sum(entry["accuracy_change"] > 0 for entry in study.entries.values())
        print(
            f"{run_dir}: {study.original['accuracy']:.1f}% as learned, better with {better} of "
            f"{len(study.entries)} corruptions",
            flush=True,
        )
    return studies, failed


def run(arguments: argparse.Namespace) -> int:
    """Study, then write tables and figures of what could be studied.

    Raises:
        UserError: a value that cannot be, or runs that are no repetitions of each other.
    """
    plan = make_plan(arguments)
    output = prepare_output_dir(arguments.output)
    studies, failed = study_runs(arguments, plan)
    if studies:
        cells = group_by_seed(studies)
        for path in write_tables(cells, plan.settings, output):
            print(f"\n{path.read_text(encoding='utf-8')}")
        for path in draw_figures(cells, plan.settings, output):
            print(f"Figure: {path} (with .pdf and .csv)")
        print(f"Tables: {output}/low_norm_*.md (with .csv and .tex)")
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
