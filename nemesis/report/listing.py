"""Tables, and their formatting as Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tabulate import tabulate

from nemesis.report.scores import Score
from safeio.untrusted import spreadsheet_text

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
SUMMARY = "average"
_LATEX = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    DASH: "--",
    MINUS: "$-$",
    "≥": r"$\geq$",
}


@dataclass(frozen=True)
class Item:
    """A table cell.

    Attributes:
        text: displayed text.
        value: unrounded number, used for sorting; None for text.
        missing: what is incomplete, such as "2 of 3 seeds".
        best: whether it is the best of its column and group.
        link: relative URL of the text's target.
    """

    text: str
    value: float | None = None
    missing: str = ""
    best: bool = False
    link: str = ""

    @property
    def full(self) -> str:
        """Text followed by what is missing."""
        return f"{self.text} ({self.missing})" if self.missing else self.text


@dataclass(frozen=True)
class Listing:
    """A table.

    Attributes:
        name: file name without suffix.
        title: heading.
        caption: description of the numbers.
        header: column names.
        rows: the cells; a row whose first cell is "average" is a summary.
        records: machine-readable entries for the CSV, one per number or row.
        text_columns: number of leading columns that hold text.
        source: "paper" if the numbers are the paper's.
        grouped: whether to group rows with the same first cell.
    """

    name: str
    title: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Item]]
    records: Sequence[Mapping[str, Any]] = field(default_factory=list)
    text_columns: int = 2
    source: str = ""
    grouped: bool = True


def number(value: float | None, digits: int = 2, sign: bool = False) -> Item:
    """Return a cell with a rounded number, or a dash for None."""
    if value is None:
        return Item(DASH)
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(text) == 0:
        text = f"{0:.{digits}f}"
    return Item(text.replace("-", MINUS), value)


def accuracy(score: Score | None, best: bool = False) -> Item:
    """Return a cell with mean ± standard deviation in %, and what is missing."""
    if score is None:
        return Item(DASH)
    if not score.accuracies:
        return Item(DASH, None, score.missing)
    text = str(Score(score.accuracies))
    return Item(text, score.mean, score.missing, best)


def groups_of(listing: Listing) -> list[tuple[str, list[Sequence[Item]]]]:
    """Group adjacent rows by the text of their first cell; one group "" if not grouped."""
    groups: list[tuple[str, list[Sequence[Item]]]] = []
    for row in listing.rows:
        name = row[0].text if listing.grouped else ""
        if not groups or groups[-1][0] != name:
            groups.append((name, []))
        groups[-1][1].append(row)
    return groups


def to_markdown(listing: Listing) -> str:
    """Format as a Markdown heading, caption and table."""
    cells = [[_markdown_cell(item.full) for item in row] for row in listing.rows]
    header = [_markdown_cell(name) for name in listing.header]
    table = tabulate(cells, header, tablefmt="github", stralign="left", disable_numparse=True)
    return f"## {listing.title}\n\n{_markdown_text(listing.caption)}\n\n{table}\n"


def _markdown_cell(text: str) -> str:
    return _markdown_text(text).replace("|", "\\|").replace("\n", " ")


def _markdown_text(text: str) -> str:
    """Escape HTML tags and links, which Markdown would interpret."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("](", "]\\(")


def to_csv(listing: Listing) -> str:
    """Format the records as CSV, one per line; lists are separated by spaces."""
    names = list(dict.fromkeys(name for record in listing.records for name in record))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n", restval="")
    writer.writeheader()
    for record in listing.records:
        writer.writerow({name: _csv_cell(value) for name, value in record.items()})
    return buffer.getvalue()


def _csv_cell(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return " ".join(str(_csv_cell(item)) for item in value)
    if isinstance(value, str):
        return spreadsheet_text(value)
    return round(value, 6) if isinstance(value, float) else value


def to_latex(listing: Listing) -> str:
    """Format as a LaTeX table environment with booktabs rules."""
    letters = "l" * listing.text_columns + "r" * (len(listing.header) - listing.text_columns)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{latex(listing.title)}. {latex(listing.caption)}}}",
        f"\\label{{tab:{listing.name}}}",
        f"\\begin{{tabular}}{{{letters}}}",
        "\\toprule",
        _latex_row([latex(name) for name in listing.header]),
        "\\midrule",
    ]
    previous = None
    for row in listing.rows:
        if listing.grouped and previous not in (None, row[0].text):
            lines.append("\\midrule" if row[0].text == SUMMARY else "\\addlinespace")
        previous = row[0].text
        lines.append(_latex_row([_latex_item(item) for item in row]))
    lines += ["\\bottomrule", "\\end{tabular}", "\\end{table}", ""]
    return "\n".join(lines)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + " \\\\"


def _latex_item(item: Item) -> str:
    text = latex(item.text)
    if item.best:
        text = f"\\textbf{{{text}}}"
    return f"{text} \\emph{{({latex(item.missing)})}}" if item.missing else text


def latex(text: str) -> str:
    """Escape text for LaTeX."""
    return "".join(_LATEX.get(letter, letter) for letter in text)
