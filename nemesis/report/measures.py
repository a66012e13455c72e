"""Table of what else was measured: macro-F1, calibration error, training time and parameters."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from statistics import fmean
from typing import Any

from .results import Run, Runs, shots_name, trained_on
from .scores import Key
from .table import Cell, Entry, Table, number


def train_seconds(run: Run) -> float | None:
    """Return a run's training time, or its share of the time of its batch."""
    seconds = run.get("train_seconds")
    return seconds / (run.get("batched") or run.get("vectorised") or 1) if seconds else None


# Measure -> its value in a run, and the decimal places shown.
MEASURES: dict[str, tuple[Callable[[Run], float | None], int]] = {
    "accuracy": (lambda run: run["accuracy"], 1),
    "macro-F1": (lambda run: run.get("macro_f1"), 1),
    "ECE": (lambda run: run.get("ece"), 1),
    "training, s": (train_seconds, 1),
    "parameters": (lambda run: run.get("parameters"), 0),
}


def measures_table(runs: Runs) -> Table | None:
    """Average every measure per row at the largest number of shots; None without any.

    The CSV has a line per row, dataset and number of shots.
    """
    cells: defaultdict[Key, list[Run]] = defaultdict(list)
    for label, run in runs:
        if "model_dir" not in run and run["accuracy"] is not None:
            cells[(label, *trained_on(run))].append(run)
    keys = ("method", "dataset", "shots")
    records = [dict(zip(keys, key, strict=True)) | _means(own) for key, own in cells.items()]
    used = [name for name in MEASURES if any(record[name] is not None for record in records)]
    if set(used) <= {"accuracy"}:
        return None
    most = max(record["shots"] for record in records)
    shown = [record for record in records if record["shots"] in (0, most)]
    datasets = len({record["dataset"] for record in shown})
    rows: list[list[Entry]] = []
    for label in dict.fromkeys(record["method"] for record in shown):
        own = [record for record in shown if record["method"] == label]
        missing = f"{len(own)} of {datasets} datasets" if len(own) < datasets else ""
        first, *others = (_cell(name, own) for name in used)
        rows.append([label, replace(first, missing=missing), *others])
    caption = f"At {shots_name(most)}; means over datasets and seeds, if several. "
    caption += "Macro-F1 and ECE (expected calibration error, lower is better) in %; training: "
    caption += "seconds of one run on its device; parameters: learned ones."
    title = "Calibration and cost"
    return Table("measures", title, ["method", *used], rows, caption, records=records)


def _means(runs: Iterable[Run]) -> dict[str, Any]:
    values = {name: [of(run) for run in runs] for name, (of, _) in MEASURES.items()}
    known = {name: [v for v in found if v is not None] for name, found in values.items()}
    return {name: fmean(found) if found else None for name, found in known.items()}


def _cell(name: str, records: Iterable[dict[str, Any]]) -> Cell:
    values = [record[name] for record in records if record[name] is not None]
    return number(fmean(values) if values else None, MEASURES[name][1])
