"""Tables A8 and A9: the cost of a training step relative to CoOp's, measured and in the paper."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from safeio.files import write_atomic, write_json

from .cases import SIDES
from .run import Entries

PAPER = Path(__file__).parent.parent / "paper"
BASELINE = "coop"
DASH = "-"


@dataclass(frozen=True)
class CostTable:
    """A table of the paper.

    Attributes:
        title: heading.
        file: CSV of the paper's numbers.
        columns: case -> the paper's column.
    """

    title: str
    file: str
    columns: Mapping[str, str]


TABLES = {
    "a8": CostTable(
        "Table A8: a training step / one of CoOp",
        "table_a8_cost.csv",
        {"pun": "PUN_x", "pan1": "PAN_x", "pun_pan": "PUN+PAN_x", "plot": "PLOT_x"},
    ),
    "a9": CostTable(
        "Table A9: a training step of PAN with N positions / one of CoOp",
        "table_a9_cost_n.csv",
        {f"pan{n}": f"N={n}" for n in (1, 2, 4, 8, 16)},
    ),
}
CAPTION = """\
Each implementation (reference, this repository) is divided by its own CoOp step, whose seconds are
in the last column; paper: as printed, on its authors' GPU. Medians of repetitions."""


def read_paper(key: str) -> list[dict[str, str]]:
    """Return the paper's rows, one per dataset."""
    with (PAPER / TABLES[key].file).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def classes_of(key: str) -> list[int]:
    """Return the numbers of classes of the paper's datasets without duplicates."""
    return sorted({int(row["classes"]) for row in read_paper(key)})


def relative(entries: Entries, backbone: str, classes: int, case: str, side: str) -> float | None:
    """Return seconds of a case over those of the same side's CoOp step; None if not measured."""
    found = [entries.find(backbone, classes, key, side) for key in (case, BASELINE)]
    top, bottom = (entry.seconds if entry else None for entry in found)
    return top / bottom if top and bottom else None


def cost_records(key: str, entries: Entries) -> list[dict[str, Any]]:
    """Return records per backbone, number of classes and side, and the paper's per dataset."""
    table = TABLES[key]
    records: list[dict[str, Any]] = []
    for backbone, classes in dict.fromkeys((e.backbone, e.classes) for e in entries.all):
        for side in SIDES:
            base = entries.find(backbone, classes, BASELINE, side)
            values = {
                column: relative(entries, backbone, classes, case, side)
                for case, column in table.columns.items()
            }
            seconds = base.seconds if base else None
            whose = f"{SIDES[side]}, {backbone}"
            records.append({"whose": whose, "classes": classes, **values})
            records[-1]["CoOp_s"] = seconds
        for row in read_paper(key):
            if int(row["classes"]) == classes:
                values = {c: float(row[c]) if row[c] else None for c in table.columns.values()}
                seconds = float(row["CoOp_s"]) if "CoOp_s" in row else None
                records.append({"whose": f"paper, {row['dataset']}", "classes": classes, **values})
                records[-1]["CoOp_s"] = seconds
    return records


def cost_markdown(key: str, records: Sequence[Mapping[str, Any]], settings: str) -> str:
    """Format the table as Markdown."""
    header = ["classes", "whose", *TABLES[key].columns.values(), "CoOp_s"]
    rows = [[_cell(record[name]) for name in header] for record in records]
    columns = [column.removesuffix("_x") for column in TABLES[key].columns.values()]
    titles = ["classes", "implementation", *columns, "CoOp, s"]
    table = tabulate(rows, titles, tablefmt="github", disable_numparse=True)
    return f"# {TABLES[key].title}\n\n{CAPTION}\n\nMeasured with {settings}.\n\n{table}\n"


def _cell(value: Any) -> str:
    if value is None:
        return DASH
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write_cost_table(key: str, entries: Entries, folder: Path, settings: Mapping[str, Any]) -> str:
    """Write table_KEY.md and table_KEY.json to the folder and return the Markdown."""
    records = cost_records(key, entries)
    measured_with = ", ".join(f"{name} {value}" for name, value in settings.items())
    text = cost_markdown(key, records, measured_with)
    write_atomic(folder / f"table_{key}.md", lambda path: path.write_text(text, encoding="utf-8"))
    measured = [entry.as_json() for entry in entries.all]
    contents = {"settings": dict(settings), "rows": records, "entries": measured}
    write_json(contents, folder / f"table_{key}.json")
    return text
