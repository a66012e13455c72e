"""Read finished runs and average them over seeds."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from safeio.checksums import read_verified_json


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
        """Sample standard deviation over the seeds; 0 for a single seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0

    def __str__(self) -> str:
        if len(self.accuracies) == 1:
            return f"{self.mean:.1f}"
        return f"{self.mean:.1f} ± {self.std:.1f}"


Cells = dict[tuple[str, str, int], Cell]


def collect_runs(folder: Path) -> list[dict[str, Any]]:
    """Return every finished run below the folder, sorted by path.

    Raises:
        DamagedFile: a results.json is damaged.
    """
    runs = (read_verified_json(path) for path in sorted(folder.rglob("results.json")))
    return [run for run in runs if run["status"] == "finished"]


def method_of(run: Mapping[str, Any]) -> str:
    """Return the name of a run's method in tables: `CoOp`, `PLOT+PAN`, `CoOp+PUN+PAN`, ..."""
    base = run["trainer"].removesuffix("Nemesis")
    if base == run["trainer"]:
        return base
    beta = run["config"]["TRAINER"]["NEMESIS"]["BETA"]
    return base + ("+PUN" if beta > 0 else "") + ("+PAN" if beta < 1 else "")


def summarise(runs: Iterable[Mapping[str, Any]]) -> Cells:
    """Group the runs' accuracies by method, dataset and shots."""
    groups: defaultdict[tuple[str, str, int], list[float]] = defaultdict(list)
    for run in runs:
        groups[method_of(run), run["dataset"], run["shots"]].append(run["accuracy"])
    return {key: Cell(tuple(values)) for key, values in groups.items()}


def accuracy_table(cells: Cells, shots: Sequence[int], baseline: str = "ZeroshotCLIP") -> str:
    """Format Markdown with a row per dataset and method and a column per number of shots.

    The baseline does not depend on shots: its accuracy is repeated in every column.
    """
    datasets = sorted({dataset for _, dataset, _ in cells})
    methods = sorted({method for method, _, _ in cells}, key=lambda name: (name != baseline, name))
    rows = []
    for dataset in datasets:
        for method in methods:
            columns = [0 if method.startswith(baseline) else count for count in shots]
            found = [cells.get((method, dataset, column)) for column in columns]
            if any(found):
                rows.append([dataset, method, *(str(cell) if cell else "-" for cell in found)])
    header = ["dataset", "method", *(f"{n} shot{'s' if n > 1 else ''}" for n in shots)]
    return tabulate(rows, header, tablefmt="github", stralign="left", disable_numparse=True)
