"""Cells of the protocols' tables: gathered over seeds, averaged, and laid out in rows.

A cell is found by its key: the name of a method's setting, the dataset trained on, the shots and,
where a prompt is tested in several places, the place.
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
Runs = Sequence[tuple[str, Run]]  # each with the name of its setting


@dataclass(frozen=True)
class Score(Cell):
    """A number of a table, in %; none of its runs may be there yet.

    Attributes:
        lacks: what is missing from it, such as "2 of 3 seeds"; empty when it is complete.
    """

    lacks: str = ""

    def __str__(self) -> str:
        text = super().__str__() if self.accuracies else "-"
        return f"{text} ({self.lacks})" if self.lacks else text


Key = tuple[Any, ...]
Scores = dict[Key, Score]
Row = dict[str, Score]  # by column


@dataclass(frozen=True)
class Table:
    """A protocol's result.

    Attributes:
        markdown: for people.
        records: for programs, one per number: what it stands for, "mean", "std", "accuracies" (a
            list over the seeds; an average has one item) and "lacks".
    """

    markdown: str
    records: list[dict[str, Any]]


def harmonic_mean(base: float, new: float) -> float:
    """2 / (1 / base + 1 / new), and 0 where one of them is."""
    return 2 * base * new / (base + new) if base and new else 0.0


def average(scores: Sequence[Score | None], what: str = "datasets") -> Score | None:
    """Mean of the means of those that are there; None when none is.

    Args:
        scores: numbers, None (or one without accuracies) for one that is missing.
        what: what they stand for, to say how many are missing.
    """
    there = [score for score in scores if score is not None and score.accuracies]
    if not there:
        return None
    lacks = max((score.lacks for score in there), key=bool)
    if len(there) < len(scores):
        lacks = f"{len(there)} of {len(scores)} {what}"
    return Score((statistics.fmean(score.mean for score in there),), lacks)


def score_over_seeds(datasets: Sequence[Mapping[int, float]]) -> Score | None:
    """Mean over the datasets for each seed, so that its deviation over the seeds is known.

    Args:
        datasets: of each dataset, the accuracy by seed.

    Returns:
        None unless all have the same seeds.
    """
    seeds = sorted(datasets[0]) if datasets else []
    if not seeds or any(sorted(accuracies) != seeds for accuracies in datasets):
        return None
    return Score(tuple(statistics.fmean(one[seed] for one in datasets) for seed in seeds))


def label_runs(folders: Sequence[Path]) -> list[tuple[str, Run]]:
    """The folders' finished and tested runs, each with the name of its setting.

    That is the method's name, such as `CoOp+PUN`, and the folder's as well where several folders
    hold runs of this method. An evaluation has the name of the run whose prompt it tests.
    """
    found = [
        (folder, method_of(run.get("source_run") or run), run)
        for folder in folders
        for run in collect_runs(folder)
        if run["accuracy"] is not None
    ]
    homes: defaultdict[str, set[Path]] = defaultdict(set)
    for folder, method, _ in found:
        homes[method].add(folder)
    return [
        (method if len(homes[method]) == 1 else f"{method} ({folder.resolve().name})", run)
        for folder, method, run in found
    ]


def is_zero_shot(run: Run) -> bool:
    """Whether the run's method learns nothing."""
    return run["trainer"].startswith(BASELINE)


def gather(keyed: Iterable[tuple[Key, Run]], seeds: int) -> Scores:
    """The runs' accuracies over the seeds, by key.

    Args:
        keyed: runs, each with the key of its cell; one that is planned has no accuracy yet.
        seeds: how many a complete cell has, unless a cell has more. Zero-shot CLIP, which no seed
            changes, needs one.

    Raises:
        UserError: there are no runs, or two of them have the same key and seed.
    """
    cells: defaultdict[Key, dict[int, Run]] = defaultdict(dict)
    for key, run in keyed:
        other = cells[key].setdefault(run["seed"], run)
        if other is not run and not is_zero_shot(run):
            first, second = (one["config"]["OUTPUT_DIR"] for one in (other, run))
            raise UserError(
                f"{first} and {second} are runs of one method with the same data and seed; name "
                "folders that hold one setting of a method each"
            )
    if not cells:
        raise UserError("These folders hold no finished and tested run of this protocol")
    wanted = max(seeds, *(len(runs) for runs in cells.values()), 1)
    return {key: _score(runs, wanted) for key, runs in cells.items()}


def _score(runs: Mapping[int, Run], wanted: int) -> Score:
    every = (runs[seed]["accuracy"] for seed in sorted(runs))
    accuracies = tuple(accuracy for accuracy in every if accuracy is not None)
    if all(map(is_zero_shot, runs.values())):
        wanted = max(1, len(accuracies))
    lacks = "" if len(accuracies) == wanted else f"{len(accuracies)} of {seeds_name(wanted)}"
    return Score(accuracies, lacks)


def seeds_name(count: int) -> str:
    """Such as "1 seed" or "5 seeds"."""
    return f"{count} seed{'s' if count != 1 else ''}"


def rows_of(scores: Scores) -> dict[Key, Row]:
    """Bring the scores of all places (the last item of their keys) into one row each."""
    rows: defaultdict[Key, Row] = defaultdict(dict)
    for (*key, column), score in scores.items():
        rows[tuple(key)][column] = score
    return dict(rows)


def make_table(caption: str, rows: Mapping[Key, Row], columns: Sequence[str]) -> Table:
    """Lay out the rows; a number that is not there is a dash."""
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
    """One number for programs."""
    label, dataset, shots = key
    return {
        "method": label,
        "dataset": dataset,
        "shots": shots,
        "column": column,
        "mean": score.mean if score.accuracies else None,
        "std": score.std if score.accuracies else None,
        "accuracies": list(score.accuracies),
        "lacks": score.lacks,
    }


def row_order(key: Key) -> Key:
    """Sort by dataset, zero-shot CLIP first, averages last."""
    label, dataset, shots = key
    return (
        dataset == AVERAGE,
        *paper_order(dataset),
        not label.startswith(BASELINE),
        natural_order(label),
        shots,
    )


def natural_order(text: str) -> list[tuple[bool, float, str]]:
    """Sort as people do: omega 2 before omega 10."""
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", text)
    return [(part[0].isdigit(), float(part) if part[0].isdigit() else 0.0, part) for part in parts]


def paper_order(name: str) -> tuple[int, str]:
    """Sort datasets as the papers do, and others behind them."""
    return (DATASETS.index(name) if name in DATASETS else len(DATASETS), name)


def caption_of(runs: Runs) -> str:
    """Say what the numbers are; a split other than test and kept training views are said, too."""
    splits = " and ".join(sorted({run["split"] for _, run in runs})).capitalize()
    seeds = sorted({run["seed"] for _, run in runs})
    over = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''} ({', '.join(map(str, seeds))})"
    views = max(run["train_views"] for _, run in runs)
    kept = f"; trained on {views} kept views of each picture" if views else ""
    return f"{splits} accuracy in %, mean ± standard deviation over {over}{kept}."
