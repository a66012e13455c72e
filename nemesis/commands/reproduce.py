r"""List what is done and what is missing for every table and figure of the paper.

    python -m nemesis reproduce --check
    python -m nemesis reproduce --check --profile mini
    python -m nemesis reproduce                    # also write the page that links all reports

For every scripts/table_*.sh and figure_*.sh: whether its datasets and weights are on this machine,
how many of its runs are done and left, how long these will take, by the time of finished runs of
the same method and shots, and how many of the paper's numbers are within one standard deviation of
the mean over the seeds. Tables share runs, so that the totals are smaller than the sums.

Exit codes: 0 done, 2 an error in the command.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dassl.utils import Parser, exit_code
from nemesis.report.overview import Card
from nemesis.report.page import Page, render
from nemesis.report.results import counted
from nemesis.report.table import DASH, Cell, Entry, Table
from nemesis.reproduction import Experiment, Reproduction, find_reproduction
from nemesis.sweeps.sweep_file import PAPER
from safeio.files import prepare_output_dir, write_text

COLUMNS = ("table or figure", "content", "data", "weights", "done", "left", "time left", "agrees")
CAPTION = (
    "done and left: runs, shared by tables; time left: estimated from finished runs; agrees: "
    "numbers of the paper within one standard deviation of the mean over the seeds."
)


def build_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = Parser(__doc__, "reproduce")
    add = parser.add_argument
    add("--check", action="store_true", help="only print the list; write no page")
    add("--profile", default=PAPER, help="paper (default), or another profile of the sweeps")
    add("--root", help="folder of the datasets (default: data)")
    add("--output-dir", type=Path, help="folder of all runs (default: the sweeps' output)")
    text = "runs at a time, for the estimated time (default: the cores)"
    add("--workers", "-w", type=int, default=os.cpu_count() or 1, metavar="N", help=text)
    return parser


def state_table(found: Reproduction, workers: int, folder: Path | None = None) -> Table:
    """Tabulate the experiments, linked to their reports if `folder` contains the page."""
    rows = [_row(one, found, workers, folder) for one in found.experiments]
    return Table("reproduction", "Tables and figures", COLUMNS, rows, CAPTION)


def _row(one: Experiment, found: Reproduction, workers: int, folder: Path | None) -> list[Entry]:
    done, left = one.runs
    link = os.path.relpath(one.report, folder) if folder and one.report else ""
    agree, known = one.agrees
    return [
        Cell(one.name, link=link),
        one.title if not one.fault else f"not readable: {one.fault}",
        _state(one.data, one.missing_data),
        _state(one.weights, one.missing_weights),
        done,
        left,
        found.estimate.describe(one.sweep.left, workers) if one.sweep else DASH,
        f"{agree} of {known}" if known else DASH,
    ]


def _state(needed: Sequence[object], missing: Sequence[str]) -> str:
    if not needed:
        return DASH
    if len(missing) > 2:
        return f"{len(missing)} of {len(needed)} missing"
    return f"missing: {', '.join(missing)}" if missing else "present"


def advice(found: Reproduction, root: str) -> list[str]:
    """Return the commands that bring what is missing."""
    data = list(dict.fromkeys(name for one in found.experiments for name in one.missing_data))
    weights = list(dict.fromkeys(name for one in found.experiments for name in one.missing_weights))
    notes = []
    if public := [name for name in data if name != "mrpc"]:
        command = f"python -m nemesis download {' '.join(public)} --root {root}"
        notes.append(f"Missing data: {command}")
    if "mrpc" in data:
        notes.append(f"Missing data: put MRPC's msr_paraphrase_*.txt into {root}/mrpc")
    if weights:
        names = ", ".join(weights)
        notes.append(f"Missing weights: {names}; the first run downloads them to ~/.cache/clip")
    return notes


def page_of(found: Reproduction, table: Table, workers: int, notes: Sequence[str]) -> Page:
    """Return the page over all tables."""
    runs, left = found.all_runs(), found.left()
    agree, known = map(sum, zip(*(one.agrees for one in found.experiments), strict=True))
    cards = [
        Card("runs done", f"{len(runs) - len(left)} of {len(runs)}", "each counted once"),
        Card("time left", found.estimate.describe(left, workers), f"{workers} at a time"),
        Card(
            "agrees with the paper",
            f"{agree} of {known}" if known else "not comparable",
            "numbers of the paper lie within one standard deviation" if known else "",
        ),
    ]
    return Page(
        title="Reproduction of the paper",
        runs=[counted(len(table.rows), "table or figure", "tables and figures")],
        cards=cards,
        notes=notes,
        comparisons=[],
        results=[table],
        groups=[],
        origin=[],
        points={},
        labels=[],
        commands=["scripts/run_all.sh"],
        common="",
        folders="all tables",
    )


def run(arguments: argparse.Namespace) -> None:
    """Print the list, and write the page unless --check is passed.

    Raises:
        UserError: see `find_reproduction`.
    """
    if sys.stderr.isatty():
        print("Reading the sweeps and the runs of every table ...", file=sys.stderr)
    found = find_reproduction(arguments.profile, arguments.output_dir, arguments.root)
    notes = advice(found, arguments.root or "data")
    folder = next(one.folder.parent for one in found.experiments)
    page = page_of(found, state_table(found, arguments.workers, folder), arguments.workers, notes)
    lines = [*map(str, page.cards), *notes]
    print(page.results[0].markdown(), *(f"- {line}" for line in lines), sep="\n")
    if arguments.check:
        return
    prepare_output_dir(folder)
    page.results[0].write(folder)
    write_text(render(page), folder / "report.html")
    print(f"\nReport: {folder / 'report.html'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return exit_code(run, build_parser(), argv)
