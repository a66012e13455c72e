"""Accuracy tables of the protocols: few-shot, base-to-new and transfer."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .results import (
    AVERAGE,
    BASELINE,
    COLUMNS,
    Runs,
    counted,
    members_of,
    paper_order,
    shots_name,
    trained_on,
)
from .scores import Key, Score, Scores, average, average_by_seed, gather, harmonic_mean
from .table import DASH, Cell, Table

OVER_SHOTS = "mean over shots"
BEST = "The best mean per column and dataset is bold; bold does not imply significance."
MEANS = (AVERAGE, "H", OVER_SHOTS)  # columns whose numbers are not accuracies over seeds


@dataclass
class AccuracyTables:
    """The accuracy tables and the numbers in them.

    Attributes:
        tables: one or more per protocol.
        scores: accuracy by (row, training dataset, shots, column), including averages; the column
            of the few-shot table is "accuracy".
    """

    tables: list[Table] = field(default_factory=list)
    scores: Scores = field(default_factory=dict)

    @property
    def over_shots(self) -> dict[tuple[str, str, int], Score]:
        """The few-shot accuracies by (row, dataset, shots)."""
        return {key[:3]: score for key, score in self.scores.items() if key[3] == "accuracy"}


def make_tables(runs: Runs, seeds: int = 0, over_shots: bool = False) -> AccuracyTables:
    """Make the tables of the protocols that the runs belong to.

    Args:
        runs: with their row names, in row order; unfinished runs have accuracy None.
        seeds: minimum number of seeds of a complete cell.
        over_shots: whether to append a column with the mean over shots to the few-shot table.

    Raises:
        UserError: two runs have the same cell and seed.
    """
    made = AccuracyTables()
    for protocol in COLUMNS:
        used = members_of(protocol, runs)
        column = COLUMNS[protocol]
        keyed = [((label, *trained_on(run), column(run)), run) for label, run in used]
        scores = gather(keyed, seeds)
        if not scores:
            continue
        if protocol == "few_shot":
            made.tables.append(_few_shot(scores, caption_of(used), over_shots))
        elif protocol == "base_to_new":
            made.tables.append(_base_to_new(scores, caption_of(used)))
        else:
            made.tables += _transfer(scores, caption_of(used))
        made.scores |= scores
    return made


def caption_of(runs: Runs) -> str:
    """Describe the numbers: split, seeds and, if used, the number of cached training views."""
    splits = " and ".join(sorted({run["split"] for _, run in runs})).capitalize()
    seeds = sorted({run["seed"] for _, run in runs})
    names = ", ".join(map(str, seeds))
    numbers = f"mean ± standard deviation over {len(seeds)} seeds ({names})"
    numbers = numbers if len(seeds) > 1 else f"seed {names}"
    return f"{splits} accuracy in %, {numbers}{_cached_views(runs)}."


def _cached_views(runs: Runs) -> str:
    used = {run.get("train_views", 0) for _, run in runs}
    numbers = [views for views in used if isinstance(views, int) and views]
    shown = [str(max(numbers))] if numbers else []
    shown += ["one per epoch"] if "epochs" in used else []
    return f"; trained on {' or '.join(shown)} cached augmentations of each image" if shown else ""


def _few_shot(scores: Scores, caption: str, over_shots: bool) -> Table:
    """Make the table with a column per number of shots, and add the averages to the scores.

    Zero-shot CLIP does not depend on shots: its accuracy is repeated in every column.
    """
    _add_averages(scores, average_by_seed)
    columns = sorted({shots for _, _, shots, _ in scores if shots}) or [0]
    rows: dict[Key, dict[str, Score]] = {}
    for label, dataset, shots, _ in _ordered(scores):
        row = rows.setdefault((dataset, label), {})
        for column in columns if label.startswith(BASELINE) and not shots else [shots]:
            row[shots_name(column)] = scores[label, dataset, shots, "accuracy"]
    names = [shots_name(column) for column in columns]
    if over_shots and len(names) > 1:
        for row in rows.values():
            mean = average_by_seed([row.get(name) for name in names], "shots")
            if mean and not mean.missing.endswith("shots"):
                row[OVER_SHOTS] = mean
        names.append(OVER_SHOTS)
    title = "Accuracy over shots" if columns != [0] else "Accuracy"
    return _table("few_shot", title, caption, ["dataset", "method"], names, rows, scores)


def _base_to_new(scores: Scores, caption: str) -> Table:
    """Make the table of base and new accuracy and H, and add averages and H to the scores.

    As in CoCoOp's tables, H is computed from accuracies averaged over the seeds, and in the row of
    averages from those averaged over the datasets; it is not the mean of the datasets' H.
    """
    # Both averages are over the datasets that have base and new accuracies.
    complete = {
        key: score
        for key, score in scores.items()
        if all(_has(scores, key[:3], half) for half in ("base", "new"))
    }
    datasets = {key[1] for key in scores}
    _add_averages(complete, average, datasets)
    scores |= complete
    for key in dict.fromkeys(key[:3] for key in complete):
        base, new = scores[(*key, "base")], scores[(*key, "new")]
        value = harmonic_mean(base.mean, new.mean)
        scores[(*key, "H")] = Score((value,), base.missing or new.missing)
    note = f"{caption} H: harmonic mean of the averaged base and new accuracies."
    rows = _rows(scores)
    columns = ["base", "new", "H"]
    return _table("base_to_new", "Base to new classes", note, _KEYS, columns, rows, scores)


def _has(scores: Scores, key: Key, column: str) -> bool:
    score = scores.get((*key, column))
    return score is not None and bool(score.accuracies)


def _transfer(scores: Scores, caption: str) -> list[Table]:
    """Make a table per source dataset, and add the targets' averages to the scores."""
    tables = []
    for index, source in enumerate(sorted({key[1] for key in scores}, key=paper_order)):
        own = {key: score for key, score in scores.items() if key[1] == source}
        targets = sorted({key[3] for key in own} - {source}, key=paper_order)
        for key in dict.fromkeys(key[:3] for key in own):
            mean = average([own.get((*key, target)) for target in targets], "targets")
            if mean:
                own[(*key, AVERAGE)] = mean
        note = f"{caption} Trained on {source}; average over {counted(len(targets), 'target')}."
        columns = [AVERAGE, source, *targets]
        name = f"transfer_{index + 1}" if index else "transfer"
        rows = _rows(own)
        tables.append(_table(name, f"Transfer from {source}", note, _KEYS, columns, rows, own))
        scores |= own
    return tables


_KEYS = ["trained on", "method", "shots"]


def _add_averages(
    scores: Scores,
    mean_of: Callable[[Sequence[Score | None]], Score | None],
    datasets: Iterable[str] = (),
) -> None:
    """Add the averages over the datasets, if there are several."""
    names = sorted(set(datasets) or {key[1] for key in scores})
    if len(names) < 2:
        return
    for label, shots, column in dict.fromkeys((key[0], *key[2:]) for key in scores):
        mean = mean_of([scores.get((label, dataset, shots, column)) for dataset in names])
        if mean:
            scores[label, AVERAGE, shots, column] = mean


def _ordered(scores: Scores) -> list[Key]:
    """Sort keys by dataset and shots; methods keep their order."""
    labels = list(dict.fromkeys(key[0] for key in scores))
    return sorted(scores, key=lambda key: (paper_order(key[1]), labels.index(key[0]), key[2]))


def _rows(scores: Scores) -> dict[Key, dict[str, Score]]:
    rows: defaultdict[Key, dict[str, Score]] = defaultdict(dict)
    for label, dataset, shots, column in _ordered(scores):
        rows[dataset, label, str(shots or DASH)][column] = scores[label, dataset, shots, column]
    return dict(rows)


def _table(
    name: str,
    title: str,
    caption: str,
    keys: Sequence[str],
    columns: Sequence[str],
    rows: dict[Key, dict[str, Score]],
    scores: Scores,
) -> Table:
    """Lay out the rows and mark the best complete mean of each column and dataset."""
    complete: defaultdict[Key, list[float]] = defaultdict(list)
    for (dataset, *_), cells in rows.items():
        for column, score in cells.items():
            if not score.missing:
                complete[dataset, column].append(round(score.mean, 1))
    lines = []
    for (dataset, *words), cells in rows.items():
        means = {column: complete[dataset, column] for column in columns}
        found = [score_cell(cells.get(column), means[column]) for column in columns]
        lines.append([dataset, *words, *found, _seeds(dataset, cells, columns)])
    bold = any(len(values) > 1 for values in complete.values())
    return Table(
        name,
        title,
        [*keys, *columns, "seeds"],
        lines,
        f"{caption} {BEST}" if bold else caption,
        grouped=True,
        records=[_record(key, scores[key]) for key in _ordered(scores)],
    )


def score_cell(score: Score | None, competitors: Sequence[float] = ()) -> Cell:
    """Return a cell with the mean and deviation in %, bold if it is the best of several."""
    if score is None or not score.accuracies:
        return Cell(DASH, missing=score.missing if score else "")
    best = not score.missing and len(competitors) > 1 and round(score.mean, 1) == max(competitors)
    return Cell(score.text, score.mean, score.missing, best)


def _record(key: Key, score: Score) -> dict[str, Any]:
    label, dataset, shots, column = key
    count = len(score.accuracies)
    return {
        "method": label,
        "dataset": dataset,
        "shots": shots,
        "column": column,
        "mean": score.mean if count else None,
        "std": score.std if count else None,
        "accuracies": list(score.accuracies),
        "lacks": score.missing,
        "seeds": count if count > 1 or (dataset != AVERAGE and column not in MEANS) else "",
    }


def _seeds(dataset: str, cells: dict[str, Score], columns: Sequence[str]) -> Cell:
    """Return the number of seeds of a row's cells, or their range, such as "2-3".

    A mean of means counts as one number, regardless of the seeds.
    """
    counted_cells = [cells[name] for name in columns if name in cells and name not in MEANS]
    counts = {len(score.accuracies) for score in counted_cells}
    counts -= {1} if dataset == AVERAGE else set()
    if not counts:
        return Cell(DASH)
    first, last = min(counts), max(counts)
    return Cell(str(first) if first == last else f"{first}{DASH}{last}", first)
