"""A table for people and programs, and how it is written as Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tabulate import tabulate

from analysis.scores import Score
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
    """One cell.

    Attributes:
        text: as it is read.
        value: what it is sorted by, and the number for programs; None for text.
        lacks: what is missing from it, such as "2 of 3 seeds".
        best: whether it is the best of its column and group.
        link: address of what the text names; relative.
    """

    text: str
    value: float | None = None
    lacks: str = ""
    best: bool = False
    link: str = ""

    @property
    def full(self) -> str:
        """The text with what is missing."""
        return f"{self.text} ({self.lacks})" if self.lacks else self.text


@dataclass(frozen=True)
class Listing:
    """A table.

    Attributes:
        name: of its files, without suffix.
        title: heading.
        caption: what the numbers are.
        header: names of the columns.
        rows: the cells; a row whose first cell is "average" sums up.
        records: for programs: one entry a number, or a row.
        text_columns: how many columns at the left hold text.
        source: "paper" where the numbers are the paper's.
        grouped: whether rows with the same first cell belong together.
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
    """A number rounded for people; a dash where there is none."""
    if value is None:
        return Item(DASH)
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(text) == 0:
        text = f"{0:.{digits}f}"
    return Item(text.replace("-", MINUS), value)


def accuracy(score: Score | None, best: bool = False) -> Item:
    """Mean ± standard deviation in %, and what is missing from it."""
    if score is None:
        return Item(DASH)
    if not score.accuracies:
        return Item(DASH, None, score.lacks)
    text = str(Score(score.accuracies))
    return Item(text, score.mean, score.lacks, best)


def groups_of(listing: Listing) -> list[tuple[str, list[Sequence[Item]]]]:
    """Neighbouring rows with the same first cell, under its text; all under "" if not grouped."""
    groups: list[tuple[str, list[Sequence[Item]]]] = []
    for row in listing.rows:
        name = row[0].text if listing.grouped else ""
        if not groups or groups[-1][0] != name:
            groups.append((name, []))
        groups[-1][1].append(row)
    return groups


def to_markdown(listing: Listing) -> str:
    """Heading, caption and table."""
    cells = [[_markdown_cell(item.full) for item in row] for row in listing.rows]
    header = [_markdown_cell(name) for name in listing.header]
    table = tabulate(cells, header, tablefmt="github", stralign="left", disable_numparse=True)
    return f"## {listing.title}\n\n{_markdown_text(listing.caption)}\n\n{table}\n"


def _markdown_cell(text: str) -> str:
    return _markdown_text(text).replace("|", "\\|").replace("\n", " ")


def _markdown_text(text: str) -> str:
    """Markdown lets HTML through; a name that looks like a tag or a link must stay a name."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("](", "]\\(")


def to_csv(listing: Listing) -> str:
    """The records, one a line; lists are separated by spaces."""
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
    """A table environment with the rules of the package booktabs."""
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
    return f"{text} \\emph{{({latex(item.lacks)})}}" if item.lacks else text


def latex(text: str) -> str:
    """Text as LaTeX shows it."""
    return "".join(_LATEX.get(letter, letter) for letter in text)
