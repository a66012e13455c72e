r"""Make tables, figures and an HTML page from finished runs.

    python -m nemesis report output/demo
    python -m nemesis report output/few_shot --baseline CoOp --test t --paper a5
    python -m nemesis report --sweep table_4 --profile mini

Reads every results.json below the folders. Rows are named by the settings that differ between the
runs. With --sweep, only the runs of that sweep are read, rows are named and ordered as in its file,
and cells with unfinished runs are marked. A number is the mean and standard deviation over the
seeds; cells with missing seeds are marked. Every row is compared with the baseline by a paired
test, and with the paper's numbers if data and backbone are the paper's. The report's folder
contains report.html (self-contained), report.md, and every table as .md, .csv and .tex. A new
report in the same folder removes the earlier one's files, except those changed since.

Exit codes: 0 done, 1 a results.json is damaged (the report contains the others), 2 an error in the
command, or runs that must not be mixed in one row or cell.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dassl.utils import Parser, exit_code
from nemesis.report.building import Options, build
from nemesis.report.paired_tests import TESTS
from nemesis.report.settings import TRAITS, row_name, short_names
from nemesis.report.sweep_status import SweepStatus, as_run
from nemesis.sweeps.command import Sweep, add_sweep_flags, resolve_sweep
from nemesis.sweeps.runs import Run, State
from safeio.errors import UserError
from safeio.untrusted import printable


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(__doc__, "report")
    add = parser.add_argument
    add(
        *("folders",),
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help="folders that contain runs; with --sweep, the folder of all its runs",
    )
    add(
        "--sweep", metavar="SWEEP", help="report a sweep's runs; `nemesis sweep --report` does, too"
    )
    add_sweep_flags(parser)
    add(
        "--output-dir",
        type=Path,
        help="default: `report` in the common parent of the FOLDERs; for a sweep, `tables/NAME`",
    )
    add("--title", help="heading of the page; default the sweep's")
    add("--baseline", metavar="ROW", help="row to compare with; default CoOp, if present")
    add("--test", choices=TESTS, default="wilcoxon", help="paired test; default wilcoxon")
    tables = "tables of the paper to show: a5, a6, 1, ..."
    add("--paper", nargs="+", default=[], metavar="TABLE", help=tables)
    add("--by", nargs="+", default=[], choices=TRAITS, help="traits to add to the row names")
    add("--over-shots", action="store_true", help="show the mean over the shots, as in Table A6")
    seeds = "seeds of a complete cell; default: the largest number of any cell"
    add("--seeds", type=int, default=0, metavar="N", help=seeds)
    mixed = "average runs of a row that differ in backbone, data or versions"
    add("--allow-mixed", action="store_true", help=mixed)
    return parser


def check(arguments: argparse.Namespace) -> None:
    """Check the combination of flags.

    Raises:
        UserError: a flag is invalid, missing, or conflicts with another.
    """
    if arguments.seeds < 0:
        raise UserError(f"--seeds is {arguments.seeds}, but must be at least 1")
    folders, sweep = arguments.folders, arguments.sweep
    if sweep is None:
        if not folders:
            raise UserError("Nothing to report: name folders with runs, or --sweep SWEEP")
        defaults = build_parser()
        for flag in ("profile", "root", "set"):
            if getattr(arguments, flag) != defaults.get_default(flag):
                raise UserError(f"--{flag} is for --sweep, which is missing; add --sweep SWEEP")
    elif len(folders) > 1:
        raise UserError(f"--sweep takes one folder of all its runs, not {len(folders)}")
    elif arguments.by:
        raise UserError("--by names rows, but --sweep has names for them; omit one of the two")


def sweep_status(sweep: Sweep) -> SweepStatus:
    """Return the sweep's finished and missing runs."""
    done, missing = {}, []
    for one in sweep.runs:
        if sweep.states[one.digest] is State.DONE:
            done[one.folder] = row_of(one)
        else:
            source = as_run(one.source.config) if one.source else None
            missing.append((row_of(one), as_run(one.config, source)))
    return SweepStatus(sweep.file.name, done, missing, list(dict.fromkeys(map(row_of, sweep.runs))))


def row_of(run: Run) -> str:
    """Return a run's row name: its method's label and its point in the method's grid."""
    names = short_names(list(run.point))
    return row_name(run.method, {names[key]: value for key, value in run.point.items()})


def run(arguments: argparse.Namespace) -> int:
    """Write the report and print its tables.

    Raises:
        UserError: see `check`, `nemesis.sweeps.command.resolve_sweep` and `build`.
    """
    check(arguments)
    options = Options(
        folders=arguments.folders,
        output=arguments.output_dir,
        baseline=arguments.baseline,
        test=arguments.test,
        paper=arguments.paper,
        by=arguments.by,
        seeds=arguments.seeds,
        allow_mixed=arguments.allow_mixed,
        over_shots=arguments.over_shots,
    )
    if arguments.title:
        options = replace(options, title=arguments.title)
    if arguments.sweep is None:
        return write(options)
    folder = arguments.folders[0] if arguments.folders else None
    settings = dict(arguments.set)
    sweep = resolve_sweep(arguments.sweep, arguments.profile, folder, arguments.root, settings)
    return report_sweep(sweep, options, arguments.title)


def report_sweep(sweep: Sweep, options: Options | None = None, title: str | None = None) -> int:
    """Write the report of a sweep's finished runs, print its tables and return the exit code.

    Args:
        sweep: its file states title, baseline and tables of the paper, where `options` do not.
        options: of the report.
        title: heading of the page.

    Raises:
        UserError: see `build`.
    """
    options = options or Options(folders=())
    file = sweep.file
    return write(
        replace(
            options,
            output=options.output or sweep.runs[0].output / "tables" / file.path.stem,
            title=title or file.title,
            baseline=options.baseline or file.baseline or None,
            paper=options.paper or file.paper,
            over_shots=options.over_shots or file.over_shots,
            sweep=sweep_status(sweep),
        )
    )


def write(options: Options) -> int:
    """Write a report, print its tables and return the exit code."""
    report = build(options)
    for table in report.page.results:
        print(table.markdown())
    for line in (*report.page.cards, *report.page.notes):
        print(f"- {line}")
    print(f"\nReport: {report.output / 'report.html'}")
    for path, why in report.damaged.items():
        print(printable(f"error: {path} is damaged: {why}"), file=sys.stderr)
    return 1 if report.damaged else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return exit_code(run, build_parser(), argv)
