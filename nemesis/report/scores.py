"""Cells of the protocols' tables: collect over seeds, average, and arrange in rows.

The key of a cell is (row name, training dataset, shots), followed by the test set if the protocol
has several.
"""

import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from safeio.errors import UserError

from .results import Cell, collect_runs, method_of

# CoOp's order, which the papers' tables follow.
DATASETS = (
    *("ImageNet", "Caltech101", "OxfordPets", "StanfordCars", "OxfordFlowers", "Food101"),
    *("FGVCAircraft", "SUN397", "DescribableTextures", "EuroSAT", "UCF101"),
    *("ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR"),
)
BASELINE = "ZeroshotCLIP"
AVERAGE = "average"

Run = Mapping[str, Any]
Runs = Sequence[tuple[str, Run]]  # each with its row name


@dataclass(frozen=True)
class Score(Cell):
    """A number of a table, in %; it has no accuracies if none of its runs is finished.

    Attributes:
        missing: what is incomplete, such as "2 of 3 seeds"; empty if complete.
    """

    missing: str = ""

    def __str__(self) -> str:
        text = super().__str__() if self.accuracies else "-"
        return f"{text} ({self.missing})" if self.missing else text


Key = tuple[Any, ...]
Scores = dict[Key, Score]
Row = dict[str, Score]  # by column


@dataclass(frozen=True)
class Table:
    """A protocol's result.

    Attributes:
        markdown: the formatted table.
        records: one per number: its key, "mean", "std", "accuracies" (a list over the seeds; an
            average has one item) and "lacks" (what is missing).
    """

    markdown: str
    records: list[dict[str, Any]]


def harmonic_mean(base: float, new: float) -> float:
    """Return 2 / (1 / base + 1 / new), or 0 if either is 0."""
    return 2 * base * new / (base + new) if base and new else 0.0


def average(scores: Sequence[Score | None], what: str = "datasets") -> Score | None:
    """Return the mean of the available means, or None if none is available.

    Args:
        scores: the numbers; a missing one is None or has no accuracies.
        what: plural noun for the numbers, used to state how many are missing.
    """
    present = [score for score in scores if score is not None and score.accuracies]
    if not present:
        return None
    missing = max((score.missing for score in present), key=bool)
    if len(present) < len(scores):
        missing = f"{len(present)} of {len(scores)} {what}"
    return Score((statistics.fmean(score.mean for score in present),), missing)


def score_over_seeds(datasets: Sequence[Mapping[int, float]]) -> Score | None:
    """Average over datasets for each seed, so that the deviation over seeds is available.

    Args:
        datasets: for each dataset, the accuracy by seed.

    Returns:
        The averages by seed; None unless all datasets have the same seeds.
    """
    seeds = sorted(datasets[0]) if datasets else []
    if not seeds or any(sorted(accuracies) != seeds for accuracies in datasets):
        return None
    return Score(tuple(statistics.fmean(one[seed] for one in datasets) for seed in seeds))


def label_runs(folders: Sequence[Path]) -> list[tuple[str, Run]]:
    """Return the finished and tested runs of the folders, each with its row name.

    The row name is the method's, such as `CoOp+PUN`, followed by the folder's name if several
    folders contain runs of the method. An evaluation has the name of its training run.
    """
    found = [
        (folder, method_of(run.get("source_run") or run), run)
        for folder in folders
        for run in collect_runs(folder)
        if run["accuracy"] is not None
    ]
    folders_of: defaultdict[str, set[Path]] = defaultdict(set)
    for folder, method, _ in found:
        folders_of[method].add(folder)
    return [
        (method if len(folders_of[method]) == 1 else f"{method} ({folder.resolve().name})", run)
        for folder, method, run in found
    ]


def is_zero_shot(run: Run) -> bool:
    """Return whether the run's method is zero-shot CLIP, which is not trained."""
    return run["trainer"].startswith(BASELINE)


def gather(keyed: Iterable[tuple[Key, Run]], seeds: int) -> Scores:
    """Collect the runs' accuracies over seeds by key.

    Args:
        keyed: (key of the cell, run); the accuracy of an unfinished run is None.
        seeds: minimum number of seeds of a complete cell. Zero-shot CLIP, which does not depend on
            the seed, needs one.

    Raises:
        UserError: there are no runs, or two runs have the same key and seed.
    """
    cells: defaultdict[Key, dict[int, Run]] = defaultdict(dict)
    for key, run in keyed:
        other = cells[key].setdefault(run["seed"], run)
        if other is not run and not is_zero_shot(run):
            first, second = (one["config"]["OUTPUT_DIR"] for one in (other, run))
            raise UserError(
                f"{first} and {second} are runs of one method with the same data and seed; name "
                "folders that each contain one setting of a method"
            )
    if not cells:
        raise UserError(
            "These folders contain no finished and tested run of this protocol; train and test one"
        )
    wanted = max(seeds, *(len(runs) for runs in cells.values()), 1)
    return {key: _score(runs, wanted) for key, runs in cells.items()}


def _score(runs: Mapping[int, Run], wanted: int) -> Score:
    every = (runs[seed]["accuracy"] for seed in sorted(runs))
    accuracies = tuple(accuracy for accuracy in every if accuracy is not None)
    if all(map(is_zero_shot, runs.values())):
        wanted = max(1, len(accuracies))
    missing = "" if len(accuracies) == wanted else f"{len(accuracies)} of {seeds_name(wanted)}"
    return Score(accuracies, missing)


def seeds_name(count: int) -> str:
    """Return, for example, "1 seed" or "5 seeds"."""
    return f"{count} seed{'s' if count != 1 else ''}"


def rows_of(scores: Scores) -> dict[Key, Row]:
    """Group scores into rows by all items of the key but the last, which is the column."""
    rows: defaultdict[Key, Row] = defaultdict(dict)
    for (*key, column), score in scores.items():
        rows[tuple(key)][column] = score
    return dict(rows)


def make_table(caption: str, rows: Mapping[Key, Row], columns: Sequence[str]) -> Table:
    """Format the rows; a missing number is a dash."""
    ordered = sorted(rows, key=row_order)
    cells = [
        [dataset, label, shots or "-", *(str(rows[key].get(name, "-")) for name in columns)]
        for key in ordered
        for label, dataset, shots in [key]
    ]
    header = ["trained on", "method", "shots", *columns]
    markdown = tabulate(cells, header, tablefmt="github", stralign="left", disable_numparse=True)
    records = [
        make_record(key, name, rows[key][name])
        for key in ordered
        for name in columns
        if name in rows[key]
    ]
    return Table(f"{caption}\n\n{markdown}", records)


def make_record(key: Key, column: str, score: Score) -> dict[str, Any]:
    """Return one number as a record."""
    label, dataset, shots = key
    return {
        "method": label,
        "dataset": dataset,
        "shots": shots,
        "column": column,
        "mean": score.mean if score.accuracies else None,
        "std": score.std if score.accuracies else None,
        "accuracies": list(score.accuracies),
        "lacks": score.missing,
    }


def row_order(key: Key) -> Key:
    """Return a sort key: by dataset, zero-shot CLIP first, averages last."""
    label, dataset, shots = key
    return (
        dataset == AVERAGE,
        *paper_order(dataset),
        not label.startswith(BASELINE),
        natural_order(label),
        shots,
    )


def natural_order(text: str) -> list[tuple[bool, float, str]]:
    """Return a natural sort key: omega 2 before omega 10."""
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", text)
    return [(part[0].isdigit(), float(part) if part[0].isdigit() else 0.0, part) for part in parts]


def paper_order(name: str) -> tuple[int, str]:
    """Return a sort key: datasets in the papers' order, then the others."""
    return (DATASETS.index(name) if name in DATASETS else len(DATASETS), name)


def caption_of(runs: Runs) -> str:
    """Describe the numbers: split, seeds and, if used, the number of cached training views."""
    splits = " and ".join(sorted({run["split"] for _, run in runs})).capitalize()
    seeds = sorted({run["seed"] for _, run in runs})
    over = f"{seeds_name(len(seeds))} ({', '.join(map(str, seeds))})"
    views = max(run.get("train_views", 0) for _, run in runs)
    cached = f"; trained on {views} cached augmentations of each image" if views else ""
    return f"{splits} accuracy in %, mean ± standard deviation over {over}{cached}."
