r"""From finished runs to tables, figures and one page.

    python report.py output/demo
    python report.py output/few_shot --baseline CoOp --test t --paper a5 --output-dir paper/tables
    python report.py --sweep configs/sweeps/table_4.yaml --bench mini --paper 4

Reads every results.json below the folders, whatever made it. Rows are named by the settings that
differ between the runs. With --sweep it reads the runs of that sweep alone: rows are named and
ordered as in its file, and a cell whose runs are not done says so. A number is the mean and
standard deviation over the seeds, and says so when it has fewer seeds than others. Every row is
compared with the baseline, pair by pair, and the paper's numbers stand beside ours where data and
backbone are the paper's. The folder of the report holds report.html (one file, opens anywhere),
report.md, and every table as .md, .csv and .tex.

Exit codes: 0 done, 1 a results.json is damaged (the others are in the report), 2 a mistake in the
command, or runs that must not stand in one row or cell.
"""

from dassl.startup import importing

with importing(__name__):
    import argparse
    import sys
    from collections.abc import Sequence
    from pathlib import Path

    from analysis.report.building import Options, build
    from analysis.report.comparison import TESTS
    from analysis.report.listing import to_markdown
    from analysis.report.planned import Planned, as_run
    from analysis.report.settings import TRAITS, row_name, short_names
    from dassl.utils import Parser, exit_code
    from safeio.errors import UserError
    from safeio.untrusted import printable
    from sweeps.command import plan
    from sweeps.runs import Run, State
    from sweeps.sweep_file import PAPER


def build_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add(
        *("folders",),
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help="folders with runs in or below; with --sweep, the folder of all its runs",
    )
    add("--sweep", metavar="SWEEP.yaml", help="report this sweep, as sweep.py has done it")
    add("--bench", help="of the sweep: paper (default), or a name under the file's bench")
    add("--root", help="of the sweep: folder of the datasets")
    add(
        "--set",
        nargs=2,
        action="append",
        default=[],
        metavar=("KEY", "VALUE"),
        help="of the sweep: a setting for all runs, as sweep.py had it",
    )
    add(
        "--output-dir",
        type=Path,
        help="default: report, in the folder of all the FOLDERs; tables/NAME there for a sweep",
    )
    add("--title", default="Report of the runs", help="heading of the page")
    add("--baseline", metavar="ROW", help="what rows are compared with; default CoOp, if there")
    add("--test", choices=TESTS, default="wilcoxon", help="paired test; default wilcoxon")
    add("--paper", nargs="+", default=[], metavar="TABLE", help="show the paper's: a5, a6, 1, ...")
    add("--by", nargs="+", default=[], choices=TRAITS, help="name rows by these as well")
    add("--over-shots", action="store_true", help="show the mean over the shots, as in Table A6")
    add("--seeds", type=int, default=0, help="seeds of a complete cell; default: of the fullest")
    add("--allow-mixed", action="store_true", help="average runs that differ in backbone and such")
    return parser


def check(arguments: argparse.Namespace) -> None:
    """Refuse flags that do not go together.

    Raises:
        UserError: says which.
    """
    if arguments.seeds < 0:
        raise UserError(f"--seeds is {arguments.seeds}, but must be at least 1")
    folders, sweep = arguments.folders, arguments.sweep
    if sweep is None:
        if not folders:
            raise UserError("Nothing to report: name folders with runs, or --sweep SWEEP.yaml")
        for flag in ("bench", "root", "set"):
            if getattr(arguments, flag):
                raise UserError(f"--{flag} is for --sweep SWEEP.yaml, which is not there")
    elif len(folders) > 1:
        raise UserError(f"--sweep takes one folder of all its runs, not {len(folders)}")
    elif arguments.by:
        raise UserError("--by names rows, but --sweep has names for them; leave one of them out")


def planned(arguments: argparse.Namespace) -> tuple[Planned, Path]:
    """What a sweep has done and what is missing, and the folder of its tables.

    Raises:
        UserError: see `sweeps.command.plan`.
    """
    folder = arguments.folders[0] if arguments.folders else None
    settings = dict(arguments.set)
    sweep = plan(arguments.sweep, arguments.bench or PAPER, folder, arguments.root, settings)
    done, missing = {}, []
    for one in sweep.runs:
        if sweep.states[one.digest] is State.DONE:
            done[one.folder] = row_of(one)
        else:
            source = as_run(one.source.config) if one.source else None
            missing.append((row_of(one), as_run(one.config, source)))
    rows = list(dict.fromkeys(map(row_of, sweep.runs)))
    output = sweep.runs[0].output / "tables" / Path(arguments.sweep).stem
    return Planned(arguments.sweep, done, missing, rows), output


def row_of(run: Run) -> str:
    """The name of a run's row: its method's label, and its place in the method's grid."""
    names = short_names(list(run.point))
    return row_name(run.method, {names[key]: value for key, value in run.point.items()})


def run(arguments: argparse.Namespace) -> int:
    """Write the report, print its tables.

    Raises:
        UserError: see `check`, `planned` and `build`.
    """
    check(arguments)
    sweep, output = planned(arguments) if arguments.sweep else (None, None)
    report = build(
        Options(
            folders=arguments.folders,
            output=arguments.output_dir or output,
            title=arguments.title,
            baseline=arguments.baseline,
            test=arguments.test,
            paper=arguments.paper,
            by=arguments.by,
            seeds=arguments.seeds,
            allow_mixed=arguments.allow_mixed,
            planned=sweep,
            over_shots=arguments.over_shots,
        )
    )
    for listing in report.results:
        print(to_markdown(listing))
    for note in report.notes:
        print(f"- {note}")
    print(f"\nReport: {report.output / 'report.html'}")
    for path, why in report.damaged.items():
        print(printable(f"error: {path} is damaged: {why}"), file=sys.stderr)
    return 1 if report.damaged else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
