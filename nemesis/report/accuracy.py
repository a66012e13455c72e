"""Accuracy tables of every protocol that has runs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from nemesis.report.protocols import base_to_new, few_shot, trained_on, transfer
from nemesis.report.scores import (
    AVERAGE,
    BASELINE,
    Key,
    Row,
    Runs,
    Score,
    Table,
    paper_order,
    row_order,
    score_over_seeds,
)

from .checks import members_of
from .listing import DASH, Item, Listing, accuracy

OVER_SHOTS = "mean over shots"
BEST = " The best mean per column and dataset is bold; bold does not imply significance."


@dataclass(frozen=True)
class Tables:
    """The accuracy tables.

    Attributes:
        listings: one or more per protocol.
        scores: (row, dataset, shots) -> few-shot accuracy, including averages over datasets.
        other: for the other protocols, (row, dataset, shots, column) -> accuracy.
    """

    listings: list[Listing]
    scores: dict[Key, Score]
    other: dict[Key, Score]


def make_tables(runs: Runs, seeds: int = 0, over_shots: bool = False) -> Tables:
    """Make the tables of the protocols that the runs belong to.

    Args:
        runs: with their row names; unfinished runs have accuracy None.
        seeds: minimum number of seeds of a complete cell.
        over_shots: whether to append a column with the mean over shots to the few-shot table.
    """
    listings = []
    scores: dict[Key, Score] = {}
    other: dict[Key, Score] = {}
    used = members_of("few-shot", runs)
    if used:
        table = _with_spread(few_shot(used, seeds), used)
        scores = {(r["method"], r["dataset"], r["shots"]): _score(r) for r in table.records}
        listings.append(_few_shot_listing(table, scores, over_shots))
    used = members_of("base-to-new", runs)
    if used:
        table = base_to_new(used, seeds)
        other |= _by_column(table)
        listings.append(_listing("base_to_new", "Base to new classes", table))
    used = transfers(runs)
    for index, table in enumerate(transfer(used, seeds) if used else []):
        other |= _by_column(table)
        source = table.records[0]["dataset"]
        name = f"transfer_{index + 1}" if index else "transfer"
        listings.append(_listing(name, f"Transfer from {source}", table))
    return Tables(listings, scores, other)


def transfers(runs: Runs) -> Runs:
    """Return the transfer runs whose source dataset has at least one evaluation elsewhere."""
    members = members_of("transfer", runs)
    sources = {trained_on(run)[0] for _, run in members if "model_dir" in run}
    return [(label, run) for label, run in members if trained_on(run)[0] in sources]


def _score(record: dict[str, Any]) -> Score:
    return Score(tuple(record["accuracies"]), record["lacks"])


def _by_column(table: Table) -> dict[Key, Score]:
    return {(r["method"], r["dataset"], r["shots"], r["column"]): _score(r) for r in table.records}


def _with_spread(table: Table, runs: Runs) -> Table:
    """Add the standard deviation over seeds to complete averages over datasets."""
    by_seed: defaultdict[Key, dict[str, dict[int, float]]] = defaultdict(dict)
    for label, run in runs:
        dataset, shots = trained_on(run)
        by_seed[label, shots].setdefault(dataset, {})[run["seed"]] = run["accuracy"]
    records = []
    for record in table.records:
        if record["dataset"] == AVERAGE and not record["lacks"]:
            spread = score_over_seeds(list(by_seed[record["method"], record["shots"]].values()))
            if spread:
                record = {**record, "std": spread.std, "accuracies": list(spread.accuracies)}
        records.append(record)
    return replace(table, records=records)


def _few_shot_listing(table: Table, scores: dict[Key, Score], over_shots: bool) -> Listing:
    """Lay out a row per dataset and method, and a column per number of shots.

    Zero-shot CLIP does not depend on shots: its accuracy is repeated in every column.
    """
    columns = sorted({shots for _, _, shots in scores if shots}) or [0]
    rows: dict[Key, dict[str, Score]] = {}
    for label, dataset, shots in sorted(scores, key=row_order):
        zero_shot = label.startswith(BASELINE) and not shots
        for column in columns if zero_shot else [shots]:
            rows.setdefault((dataset, label), {})[shots_name(column)] = scores[
                label, dataset, shots
            ]
    names = [shots_name(column) for column in columns]
    if over_shots and len(names) > 1:
        for row in rows.values():
            row.update(_over_shots([row.get(name) for name in names]))
        names.append(OVER_SHOTS)
    caption = table.markdown.partition("\n")[0] + BEST
    records = [_record(record) for record in table.records]
    return Listing(
        "few_shot",
        "Accuracy over shots",
        caption,
        ["dataset", "method", *names, "seeds"],
        _lines(rows, names),
        records,
    )


def _over_shots(scores: Sequence[Score | None]) -> Row:
    """Return the mean over shots, with its deviation over seeds; empty if a shot is missing."""
    present = [score for score in scores if score is not None and score.accuracies]
    if len(present) < len(scores):
        return {}
    missing = max((score.missing for score in present), key=bool)
    counts = {len(score.accuracies) for score in present}
    if missing or len(counts) > 1:
        return {OVER_SHOTS: Score((fmean(score.mean for score in present),), missing)}
    columns = zip(*(score.accuracies for score in present), strict=True)
    return {OVER_SHOTS: Score(tuple(fmean(column) for column in columns))}


def shots_name(count: int) -> str:
    """Return, for example, "1 shot" or "16 shots"."""
    return f"{count} shot{'s' if count != 1 else ''}"


def _listing(name: str, title: str, table: Table) -> Listing:
    rows: dict[Key, dict[str, Score]] = {}
    for record in table.records:
        key = record["dataset"], record["method"], str(record["shots"] or DASH)
        rows.setdefault(key, {})[record["column"]] = _score(record)
    columns = list(dict.fromkeys(r["column"] for r in table.records))
    if name == "base_to_new":
        columns = ["base", "new", "H"]
    else:
        source = table.records[0]["dataset"]
        columns.sort(key=lambda c: (c == AVERAGE, c != source, *paper_order(c)))
    return Listing(
        name,
        title,
        table.markdown.partition("\n")[0] + BEST,
        ["trained on", "method", "shots", *columns, "seeds"],
        _lines(rows, columns),
        [_record(record) for record in table.records],
        text_columns=3,
    )


def _record(record: dict[str, Any]) -> dict[str, Any]:
    """Add the number of seeds to a record; a single mean over several cells has none."""
    single_cell = record["dataset"] != AVERAGE and record["column"] not in (AVERAGE, "H")
    count = len(record["accuracies"]) if single_cell or len(record["accuracies"]) > 1 else ""
    return {**record, "seeds": count}


def _lines(rows: dict[Key, dict[str, Score]], columns: Sequence[str]) -> list[list[Item]]:
    """Lay out the rows and mark the best complete mean of each column and dataset."""
    best: dict[Key, float] = {}
    competitors: defaultdict[Key, int] = defaultdict(int)
    for (dataset, *_), cells in rows.items():
        for column, score in cells.items():
            if not score.missing:
                key = dataset, column
                best[key] = max(best.get(key, 0.0), round(score.mean, 1))
                competitors[key] += 1
    lines = []
    for (dataset, *words), cells in rows.items():
        items = []
        for column in columns:
            cell = cells.get(column)
            key = dataset, column
            ranked = cell is not None and not cell.missing and competitors[key] > 1
            is_best = ranked and cell is not None and round(cell.mean, 1) == best[key]
            items.append(accuracy(cell, is_best))
        text = [Item(word) for word in (dataset, *words)]
        lines.append([*text, *items, _seeds(dataset, cells, columns)])
    return lines


def _seeds(dataset: str, cells: dict[str, Score], columns: Sequence[str]) -> Item:
    """Return the number of seeds of a row's cells, or their range, such as "2-3".

    An average of means counts as one number, regardless of the seeds.
    """
    means = AVERAGE, "H", OVER_SHOTS
    counted = [cells[name] for name in columns if name in cells and name not in means]
    counts = sorted(
        {len(score.accuracies) for score in counted} - ({1} if dataset == AVERAGE else set())
    )
    if not counts:
        return Item(DASH)
    text = str(counts[0]) if len(counts) == 1 else f"{counts[0]}{DASH}{counts[-1]}"
    return Item(text, counts[0])
