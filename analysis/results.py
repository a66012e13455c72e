"""Finished runs, and their means over seeds."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate


@dataclass(frozen=True)
class Cell:
    """Accuracies (in %) of one method on one dataset at one number of shots, one per seed."""

    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float:
        """Sample standard deviation over the seeds; 0 for a single one."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0

    def __str__(self) -> str:
        if len(self.accuracies) == 1:
            return f"{self.mean:.1f}"
        return f"{self.mean:.1f} ± {self.std:.1f}"


Cells = dict[tuple[str, str, int], Cell]


def collect_runs(folder: Path) -> list[dict[str, Any]]:
    """Every finished run under the folder, in the order of their paths."""
    runs = (json.loads(path.read_text()) for path in sorted(folder.rglob("results.json")))
    return [run for run in runs if run["status"] == "finished"]


def summarise(runs: Iterable[dict[str, Any]]) -> Cells:
    """Group the runs' accuracies by (trainer, dataset, shots)."""
    groups: defaultdict[tuple[str, str, int], list[float]] = defaultdict(list)
    for run in runs:
        groups[run["trainer"], run["dataset"], run["shots"]].append(run["accuracy"])
    return {key: Cell(tuple(values)) for key, values in groups.items()}


def accuracy_table(cells: Cells, shots: Sequence[int], baseline: str = "ZeroshotCLIP") -> str:
    """Markdown: a row per dataset and method, a column per number of shots.

    The baseline learns from no shots: its one accuracy stands in every column.
    """
    datasets = list(dict.fromkeys(dataset for _, dataset, _ in cells))
    trainers = list(dict.fromkeys(trainer for trainer, _, _ in cells))
    trainers.sort(key=lambda trainer: trainer != baseline)
    rows = []
    for dataset in datasets:
        for trainer in trainers:
            columns = [0 if trainer == baseline else count for count in shots]
            found = [cells.get((trainer, dataset, column)) for column in columns]
            rows.append([dataset, trainer, *("-" if cell is None else str(cell) for cell in found)])
    header = ["dataset", "method", *(f"{n} shot{'s' if n > 1 else ''}" for n in shots)]
    return tabulate(rows, header, tablefmt="github", stralign="left", disable_numparse=True)
