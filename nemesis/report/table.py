"""The one type for tables, written as Markdown, CSV, LaTeX and HTML.

table = Table("norms", "Norms", ["class", "norm"], [["cat", number(1.25)], ["dog", None]])
print(table.markdown())
table.write(folder)  # norms.md, norms.csv and norms.tex
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from tabulate import tabulate

from safeio.files import write_text
from safeio.untrusted import spreadsheet_text

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
STAR = "\N{ASTERISK OPERATOR}"  # Markdown does not interpret it
SUMMARY = "average"  # name of the group that averages the others
FORMATS = ("md", "csv", "tex")
_LATEX = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    DASH: "--",
    MINUS: "$-$",
    **{"±": r"$\pm$", "≥": r"$\geq$", "\N{MULTIPLICATION SIGN}": r"$\times$", STAR: "*"},
    **{"↓": r"$\downarrow$", "↑": r"$\uparrow$"},
}


@dataclass(frozen=True)
class Cell:
    """A table cell.

    Attributes:
        text: displayed text.
        value: unrounded number, for sorting and CSV; None for text.
        missing: what is incomplete, such as "2 of 3 seeds"; shown in brackets.
        bold: whether to emphasise the text, such as the best of a column.
        mark: superscript, such as a star for a small p-value.
        link: relative URL of the text's target, in HTML.
        tone: CSS class in HTML, such as "gain".
    """

    text: str
    value: float | None = None
    missing: str = ""
    bold: bool = False
    mark: str = ""
    link: str = ""
    tone: str = ""

    def __str__(self) -> str:
        text = f"{self.text}{self.mark}"
        return f"{text} ({self.missing})" if self.missing else text


def number(value: float | None, digits: int = 2, sign: bool = False, **parts: Any) -> Cell:
    """Return a cell with a rounded number, or a dash for None.

    Args:
        value: the number.
        digits: decimal places.
        sign: whether to print a plus sign.
        parts: other attributes of the `Cell`.
    """
    if value is None:
        return Cell(DASH, **parts)
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(text) == 0:
        text = f"{0:.{digits}f}"
    return Cell(text.replace("-", MINUS), value, **parts)


Entry = Cell | str | int | None
Row = tuple[Cell, ...]


def _cell(entry: Entry) -> Cell:
    if isinstance(entry, Cell):
        return entry
    if entry is None:
        return Cell(DASH)
    return Cell(str(entry), entry if isinstance(entry, int) else None)


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: file name without suffix; also the HTML id and the LaTeX label.
        title: heading.
        columns: column names.
        rows: the entries: a `Cell`, text, a whole number, or None for a dash.
        caption: description of the numbers.
        grouped: whether to set off adjacent rows with the same first cell; the group "average" is
            a summary.
        records: content of the CSV, if that differs from the rows.
        tag: label next to the title, such as "the paper's numbers".
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    caption: str = ""
    grouped: bool = False
    records: Sequence[Mapping[str, Any]] | None = None
    tag: str = ""

    @cached_property
    def cells(self) -> list[Row]:
        """The rows, with every entry as a `Cell`."""
        return [tuple(map(_cell, row)) for row in self.rows]

    @cached_property
    def alignment(self) -> str:
        """A letter per column: l, or r for a column of numbers."""
        return "".join(
            "l" if any(_is_text(row[at]) for row in self.cells) or not self.cells else "r"
            for at in range(len(self.columns))
        )

    def groups(self) -> list[tuple[str, list[Row]]]:
        """Group adjacent rows by the text of their first cell; one group "" if not grouped."""
        key = (lambda row: row[0].text) if self.grouped else (lambda row: "")
        return [(name, list(rows)) for name, rows in groupby(self.cells, key)]

    def markdown(self) -> str:
        """Format as a Markdown heading, table and caption."""
        rows = [[_markdown_cell(_bold(cell)) for cell in row] for row in self.cells]
        header = [_markdown_cell(name) for name in self.columns]
        align = ["left" if letter == "l" else "right" for letter in self.alignment]
        table = tabulate(rows, header, tablefmt="pipe", colalign=align, disable_numparse=True)
        parts = (f"## {self.title}", _markdown_text(self.caption), table)
        return "\n\n".join(part for part in parts if part) + "\n"

    def csv(self) -> str:
        """Format the records, or else the rows, as CSV; lists are separated by spaces."""
        records = self.records if self.records is not None else list(self._plain_records())
        names = list(dict.fromkeys(name for record in records for name in record))
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, names or self.columns, lineterminator="\n", restval="")
        writer.writeheader()
        for record in records:
            writer.writerow({name: _csv_cell(value) for name, value in record.items()})
        return buffer.getvalue()

    def _plain_records(self) -> Iterator[dict[str, Any]]:
        for row in self.cells:
            values = (str(cell) if cell.value is None else cell.value for cell in row)
            yield dict(zip(self.columns, values, strict=True))

    def latex(self) -> str:
        """Format as a LaTeX table environment with booktabs rules."""
        caption = f"{self.title}. {self.caption}" if self.caption else self.title
        lines = [
            "% needs \\usepackage{booktabs}",
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{escape_latex(caption)}}}",
            f"\\label{{tab:{self.name}}}",
            f"\\begin{{tabular}}{{{self.alignment}}}",
            "\\toprule",
            _latex_row(map(escape_latex, self.columns)),
            "\\midrule",
        ]
        for index, (name, rows) in enumerate(self.groups()):
            if index:
                previous = self.groups()[index - 1][0]
                lines.append("\\midrule" if SUMMARY in (name, previous) else "\\addlinespace")
            lines += [_latex_row(map(_latex_cell, row)) for row in rows]
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])

    def html(self) -> str:
        """Format as HTML without title and caption; all texts are escaped."""
        return html_template("table.html").render(table=self)

    def write(self, folder: Path) -> Path:
        """Write NAME.md, NAME.csv and NAME.tex into the folder; return the first one's path."""
        texts = dict(zip(FORMATS, (self.markdown(), self.csv(), self.latex()), strict=True))
        for suffix, text in texts.items():
            write_text(text, folder / f"{self.name}.{suffix}")
        return folder / f"{self.name}.md"


def _is_text(cell: Cell) -> bool:
    return cell.value is None and cell.text not in ("", DASH)


def _bold(cell: Cell) -> str:
    return f"**{cell.text}**{str(cell)[len(cell.text) :]}" if cell.bold else str(cell)


def _markdown_cell(text: str) -> str:
    return _markdown_text(text).replace("|", "\\|").replace("\n", " ")


def _markdown_text(text: str) -> str:
    """Escape HTML tags and links, which Markdown would interpret."""
    return re.sub("<(?=[a-zA-Z/!?])", "&lt;", text.replace("&", "&amp;")).replace("](", "]\\(")


def _csv_cell(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return " ".join(str(_csv_cell(item)) for item in value)
    if isinstance(value, str):
        return spreadsheet_text(value)
    return round(value, 6) if isinstance(value, float) else value


def _latex_row(cells: Any) -> str:
    return " & ".join(cells) + " \\\\"


def _latex_cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    if cell.bold:
        text = f"\\textbf{{{text}}}"
    if cell.mark:
        text += f"\\textsuperscript{{{escape_latex(cell.mark)}}}"
    return f"{text} \\emph{{({escape_latex(cell.missing)})}}" if cell.missing else text


def escape_latex(text: str) -> str:
    """Escape text for LaTeX."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


@lru_cache
def html_template(name: str) -> Any:
    """Return a Jinja template of this folder, which escapes all values."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # slow to import

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(name)
