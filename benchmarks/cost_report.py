"""The report of step costs: entries, targets, and the paper's tables A8 and A9."""

import csv
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nemesis.report.table import Table

from .cases import CASES, REFERENCE, SIDES, STUDY_IMAGES, TEST_BATCH, TEST_IMAGES
from .measure import GIB
from .report import Report, measured_with, table
from .synthetic import N_CTX

PAPER = Path(__file__).parent.parent / "nemesis" / "report" / "paper_tables"
BASELINE = "coop"
FEW, MANY = 100, 1000  # classes
RELATIONS = {">=": operator.ge, "<=": operator.le, "<": operator.lt}
NOTES = f"""\
Reference: OpenAI's CLIP with CoOp's published code (`benchmarks/reference_clip.py`); this
repository: the registered trainers. Seconds are medians of alternating repetitions; peak memory is
of one run in a separate process, above the loaded model. {N_CTX} context tokens, class token at the
end, fp32, batch 32 (CoCoOp: 4), random weights and images, ImageNet's class names. Launches and
waits: on CUDA kernels and waits for the device; on a CPU operators, of runs below five seconds.

- PAN, reference: one more text pass per position. Cached views: the reference is the CoOp step.
- Corruption study, per prompt of {N_CTX + 1} (each position rescaled by 0.5, and the original): the
  reference encodes text and the {STUDY_IMAGES} images for each, this repository the images once.
- Evaluation of a second prompt: this repository has cached image features. The test set has
  {TEST_IMAGES} images in batches of {TEST_BATCH}; the ratio is proportional to its size."""


@dataclass
class Entry:
    """The measurements of a case on one side, `plain` (reference) or `ours` (this repository).

    Attributes:
        seconds: median, per prompt if the case has several; None if not timed.
        runs: seconds of every repetition, likewise.
        above: peak memory above the loaded model in bytes.
        total: total peak memory in bytes.
        skipped: why it was not measured; "" otherwise.
        launches, waits, busy: see `launches.Launches`; None if not counted.
    """

    backbone: str
    classes: int
    case: str
    side: str
    seconds: float | None = None
    runs: list[float] = field(default_factory=list)
    above: int | None = None
    total: int | None = None
    skipped: str = ""
    launches: int | None = None
    waits: int | None = None
    busy: float | None = None

    @property
    def issued(self) -> str | None:
        """Launches and waits for a table; None if not counted."""
        return None if self.launches is None else f"{self.launches:,} ({self.waits})"


class Entries:
    """Lookup of entries; a reference workload shared by two cases is found under both."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.all = list(entries)
        self._by_key = {(e.backbone, e.classes, e.case, e.side): e for e in self.all}

    def find(self, backbone: str, classes: int, case: str, side: str) -> Entry | None:
        """Return the entry, or None if it was not measured."""
        entry = self._by_key.get((backbone, classes, case, side))
        if entry is None and side == REFERENCE and CASES[case].reference_as:
            entry = self._by_key.get((backbone, classes, CASES[case].reference_as or "", side))
        return entry

    def seconds(self, *key: Any) -> float | None:
        """Return the seconds of an entry; None if it was not timed."""
        entry = self.find(*key)
        return entry.seconds if entry else None

    @property
    def sizes(self) -> list[tuple[str, int]]:
        """Backbones and numbers of classes in the order of measurement."""
        return list(dict.fromkeys((e.backbone, e.classes) for e in self.all))

    def as_json(self) -> list[dict[str, Any]]:
        """Return the entries of bench.json."""
        return [asdict(entry) for entry in self.all]


@dataclass(frozen=True)
class Target:
    """A bound on RN50, fp32, CPU: on a ratio of two measurements, or on a single one.

    Attributes:
        title: label of the row.
        bound: a relation and its right-hand side.
        classes: C.
        top: case and side of the numerator's entry.
        bottom: those of the denominator's entry; "" for a single measurement.
        quantity: seconds, bytes above the model, or total GiB of an entry.
    """

    title: str
    bound: str
    classes: int
    top: str
    bottom: str
    quantity: Callable[[Entry], float | None] = lambda entry: entry.seconds

    def value(self, entries: Entries) -> float | None:
        """Return the measured value; None if an entry is missing."""
        keys = [key.split() for key in (self.top, self.bottom) if key]
        found = [entries.find("RN50", self.classes, case, side) for case, side in keys]
        numbers = [self.quantity(entry) if entry else None for entry in found]
        return numbers[0] if len(numbers) == 1 else ratio(*numbers)

    def met(self, value: float) -> bool:
        """Return whether a value meets the target."""
        relation, bound = self.bound.split()
        met: bool = RELATIONS[relation](value, float(bound))
        return met


def _above(entry: Entry) -> float | None:
    return entry.above


def _total_gib(entry: Entry) -> float | None:
    return entry.total / GIB if entry.total else None


TARGETS = (
    Target(
        "text forward + backward, 100 classes, reference / this repository",
        *(">= 18", FEW, "text_backward plain", "text_backward ours"),
    ),
    Target(
        "text forward, 1000 classes, reference / this repository",
        *(">= 16", MANY, "text_forward plain", "text_forward ours"),
    ),
    Target(
        "text forward of N = 16 corrupted prompts / one reference text forward, 100 classes",
        *("<= 0.9", FEW, "text_corrupted ours", "text_forward plain"),
    ),
    Target(
        "PAN N = 1 step / CoOp step, this repository, 100 classes, batch 32",
        *("<= 1.08", FEW, "pan1 ours", "coop ours"),
    ),
    Target(
        "PAN N = 16 step, this repository / CoOp step, reference, 100 classes, batch 32",
        *("<= 0.6", FEW, "pan16 ours", "coop plain"),
    ),
    Target(
        "peak memory of a CoOp step above the model, 100 classes, reference / this repository",
        *(">= 10", FEW, "coop plain", "coop ours", _above),
    ),
    Target(
        "CoOp step with cached views, 100 classes, reference / this repository",
        *(">= 20", FEW, "coop_cached plain", "coop_cached ours"),
    ),
    Target(
        "evaluation of a second prompt on a cached test set / the first evaluation, 100 classes",
        *("<= 0.02", FEW, "evaluation_again ours", "evaluation ours"),
    ),
    Target(
        "CoOp training step on 1000 classes, batch 32: total peak memory, GiB",
        *("< 6", MANY, "coop ours", "", _total_gib),
    ),
)


def target_rows(entries: Entries) -> list[dict[str, Any]]:
    """Return every target with its bound, the value (None: not measured) and whether it is met."""
    values = [(target, target.value(entries)) for target in TARGETS]
    return [
        {
            "title": target.title,
            "target": target.bound,
            "value": value,
            "met": None if value is None else target.met(value),
        }
        for target, value in values
    ]


def cost_report(
    entries: Entries, settings: Mapping[str, Any], differences: Mapping[str, float]
) -> Report:
    """Return the report: targets, a table per backbone and number of classes, and notes."""
    targets = target_rows(entries)
    words = {None: None, True: "yes", False: "no"}
    rows = [[row["title"], row["target"], row["value"], words[row["met"]]] for row in targets]
    parts: list[str | Table] = ["# Cost of a step", measured_with(settings)]
    parts.append(table("targets", "Targets", ["RN50, fp32", "target", "measured", "met"], rows))
    parts += [_table(entries, *size) for size in entries.sizes]
    worst = ", ".join(f"{value:.0e} ({name})" for name, value in differences.items())
    parts += ["## Method", NOTES]
    parts.append(
        f"Largest relative difference between the two implementations before measuring: {worst}."
    )
    contents = {
        "settings": dict(settings),
        "parity": dict(differences),
        "targets": targets,
        "entries": entries.as_json(),
    }
    return Report("bench", parts, contents)


def _table(entries: Entries, backbone: str, classes: int) -> Table:
    """Return one table with a row per case."""
    rows: list[list[Any]] = []
    for key, case in CASES.items():
        reference, own = (entries.find(backbone, classes, key, side) for side in SIDES)
        if own is None:
            continue
        seconds = [entry.seconds if entry else None for entry in (reference, own)]
        gib = [entry.above / GIB if entry and entry.above else None for entry in (reference, own)]
        skipped = [(entry.skipped if entry else "") or None for entry in (reference, own)]
        shown = [value or why for value, why in zip(seconds, skipped, strict=True)]
        launches = [entry.issued if entry else None for entry in (reference, own)]
        rows.append([case.title, *shown, ratio(*seconds), *gib, ratio(*gib), *launches])
    header = ["case", "reference, s", "this repository, s", "ratio"]
    header += ["reference, GiB", "this repository, GiB", "ratio"]
    header += ["reference, launches (waits)", "this repository, launches (waits)"]
    return table(f"{backbone}_{classes}", f"{backbone}, {classes} classes", header, rows)


def ratio(top: float | None, bottom: float | None) -> float | None:
    """Return the quotient; None if a number is missing."""
    return top / bottom if top and bottom else None


@dataclass(frozen=True)
class CostTable:
    """A table of the paper: its heading, its CSV file, and its columns by case."""

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


def table_report(key: str, entries: Entries, settings: Mapping[str, Any]) -> Report:
    """Return one of the paper's tables: rows per number of classes and side, and the paper's."""
    columns = TABLES[key].columns
    records: list[dict[str, Any]] = []
    for backbone, classes in entries.sizes:
        for side, name in SIDES.items():
            where = (backbone, classes)
            base = entries.seconds(*where, BASELINE, side)
            values = {
                column: ratio(entries.seconds(*where, case, side), base)
                for case, column in columns.items()
            }
            record = {"whose": f"{name}, {backbone}", "classes": classes, **values}
            records.append({**record, "CoOp_s": base})
        for row in (row for row in read_paper(key) if int(row["classes"]) == classes):
            numbers = {name: row.get(name) for name in (*columns.values(), "CoOp_s")}
            values = {name: float(text) if text else None for name, text in numbers.items()}
            records.append({"whose": f"paper, {row['dataset']}", "classes": classes, **values})
    names = ["classes", "whose", *columns.values(), "CoOp_s"]
    titles = [name.removesuffix("_x") for name in columns.values()]
    shown = table(
        f"table_{key}",
        TABLES[key].title,
        ["classes", "implementation", *titles, "CoOp, s"],
        [[record[name] for name in names] for record in records],
        f"{CAPTION} {measured_with(settings)}",
    )
    contents = {"settings": dict(settings), "rows": records, "entries": entries.as_json()}
    return Report(f"table_{key}", [shown], contents)
