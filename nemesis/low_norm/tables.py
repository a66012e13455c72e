"""Tables of the occurrence frequencies (A2, A3) in Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from safeio.files import write_atomic

from .corruption import REPLACE, RESCALE
from .frequency import Key, SeedMean, Setting

TITLES = {
    REPLACE: "Low-Norm Effect under REPLACE (as Table A2)",
    RESCALE: "Low-Norm Effect under RESCALE (as Table A3)",
}
NOTES = {
    REPLACE: (
        "Number of positions where replacing the learned vector by normal noise raises the test "
        "accuracy (means over the seeds). The arrow shows whether the vectors' mean norm falls or "
        "rises. The values are standard deviations, as in the released code of the paper, which "
        "calls them variances."
    ),
    RESCALE: (
        "Number of positions where multiplying the learned vector by the factor raises the test "
        "accuracy (means over the seeds). The arrow shows whether the vectors' norm falls or "
        "rises. Low-norm sums the factors below 1."
    ),
}
NAMES = {REPLACE: "std", RESCALE: "factor"}
INCOMPLETE = "-"  # not every position was tested
DOWN, UP, SAME = "↓", "↑", ""
LATEX = {DOWN: r"$\downarrow$", UP: r"$\uparrow$", INCOMPLETE: "--"}


@dataclass(frozen=True)
class Table:
    """Occurrence frequencies under one kind of corruption.

    Attributes:
        kind: replace or rescale.
        header: column titles.
        rows: cells as text.
    """

    kind: str
    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """Return Markdown with title and note."""
        table = tabulate(self.rows, self.header, tablefmt="github", disable_numparse=True)
        return f"## {TITLES[self.kind]}\n\n{table}\n\n{NOTES[self.kind]}\n"

    def csv(self) -> str:
        """Return comma-separated values."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.rows])
        return text.getvalue()

    def latex(self) -> str:
        """Return a booktabs table with title and note as caption."""
        table = tabulate(
            [[_latex(cell) for cell in row] for row in self.rows],
            [_latex(title) for title in self.header],
            tablefmt="latex_booktabs",
            disable_numparse=True,
        )
        for sign, command in LATEX.items():
            table = table.replace(sign, command) if sign in (DOWN, UP) else table
        caption = f"{TITLES[self.kind]}. {NOTES[self.kind]}"
        return f"\\begin{{table}}\n\\caption{{{caption}}}\n\\centering\n{table}\n\\end{{table}}\n"


def _latex(cell: str) -> str:
    return LATEX.get(cell, cell)


def frequency_table(cells: Mapping[Key, SeedMean], settings: Sequence[Setting], kind: str) -> Table:
    """Make a table with a row per method, dataset and shots, and a column per setting of `kind`.

    Args:
        cells: see `group_by_seed`.
        settings: of which other kinds are ignored.
        kind: replace or rescale.
    """
    columns = [setting for setting in settings if setting[0] == kind]
    header = ["method", "dataset", "shots", "seeds", "of"]
    header += [f"{NAMES[kind]} {value:g}" for _, value in columns]
    rows = []
    for (method, dataset, shots), cell in cells.items():
        row = [method, dataset, str(shots), str(len(cell.studies)), str(cell.length)]
        row += [_cell(cell, setting) for setting in columns]
        if kind == RESCALE:
            low = cell.low_norm_frequency(columns)
            row.append(INCOMPLETE if low is None else str(low))
        rows.append(row)
    return Table(kind, [*header, *(["low-norm"] if kind == RESCALE else [])], rows)


def _cell(cell: SeedMean, setting: Setting) -> str:
    frequency = cell.frequency(setting)
    if frequency is None:
        return INCOMPLETE
    change = cell.norm_change(setting)
    return f"{frequency} {UP if change > 0 else DOWN if change < 0 else SAME}".strip()


def write_tables(
    cells: Mapping[Key, SeedMean], settings: Sequence[Setting], folder: Path
) -> list[Path]:
    """Write low_norm_{replace,rescale}.{md,csv,tex} into the folder; return the Markdown files."""
    written = []
    for kind in dict.fromkeys(kind for kind, _ in settings):
        table = frequency_table(cells, settings, kind)
        for suffix, text in (
            ("md", table.markdown()),
            ("csv", table.csv()),
            ("tex", table.latex()),
        ):
            _write(folder / f"low_norm_{kind}.{suffix}", text)
        written.append(folder / f"low_norm_{kind}.md")
    return written


def _write(path: Path, text: str) -> None:
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
