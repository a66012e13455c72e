r"""From finished runs to tables, figures and one page.

    python report.py output/demo
    python report.py output/few_shot --baseline CoOp --test t --paper a5 --output-dir paper/tables

Reads every results.json below the folders, whatever made it. Rows are named by the settings that
differ between the runs; a number is the mean and standard deviation over the seeds, and says so
when it has fewer seeds than others. Every row is compared with the baseline, pair by pair, and the
paper's numbers stand beside ours where data and backbone are the paper's. The folder of the report
holds report.html (one file, opens anywhere), report.md, and every table as .md, .csv and .tex.

Exit codes: 0 done, 1 a results.json is damaged (the others are in the report), 2 a mistake in the
command, or runs that must not stand in one row or cell.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.report.building import Options, build
from analysis.report.comparison import TESTS
from analysis.report.listing import to_markdown
from analysis.report.settings import TRAITS
from dassl.utils import Parser, UserError, exit_code


def build_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("folders", nargs="+", type=Path, metavar="FOLDER", help="folders with runs in or below")
    add("--output-dir", type=Path, help="default: report, in the folder of all the FOLDERs")
    add("--title", default="Report of the runs", help="heading of the page")
    add("--baseline", metavar="ROW", help="what rows are compared with; default CoOp, if there")
    add("--test", choices=TESTS, default="wilcoxon", help="paired test; default wilcoxon")
    add("--paper", nargs="+", default=[], metavar="TABLE", help="show the paper's: a5, a6, 1, ...")
    add("--by", nargs="+", default=[], choices=TRAITS, help="name rows by these as well")
    add("--seeds", type=int, default=0, help="seeds of a complete cell; default: of the fullest")
    add("--allow-mixed", action="store_true", help="average runs that differ in backbone and such")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Write the report, print its tables.

    Raises:
        UserError: see `build`; or a number of seeds that cannot be.
    """
    if arguments.seeds < 0:
        raise UserError(f"--seeds is {arguments.seeds}, but must be at least 1")
    report = build(
        Options(
            folders=arguments.folders,
            output=arguments.output_dir,
            title=arguments.title,
            baseline=arguments.baseline,
            test=arguments.test,
            paper=arguments.paper,
            by=arguments.by,
            seeds=arguments.seeds,
            allow_mixed=arguments.allow_mixed,
        )
    )
    for listing in report.results:
        print(to_markdown(listing))
    for note in report.notes:
        print(f"- {note}")
    print(f"\nReport: {report.output / 'report.html'}")
    for path, why in report.damaged.items():
        print(f"error: {path} is damaged: {why}", file=sys.stderr)
    return 1 if report.damaged else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
