"""Tables of the differences to the baseline."""

from dataclasses import replace
from typing import Any

from .comparison import Comparison, Difference
from .paired_tests import LEVEL, STRICT_LEVEL, TESTS
from .results import counted
from .table import DASH, MINUS, STAR, Cell, Entry, Table, number

TITLES = {
    "few_shot": "accuracy over shots",
    "base_to_new": "base to new classes",
    "transfer": "transfer",
}


def comparison_table(found: Comparison) -> Table:
    """Tabulate the differences: a row per method, a column per number of shots, half or test set.

    The CSV has one line per difference, with its p before and after Holm's adjustment.
    """
    rows: list[list[Entry]] = []
    for label in found.labels:
        whole = found.over_all(label)
        cells = [_gain_cell(found.differences.get((label, column))) for column in found.columns]
        cells[-1] = replace(cells[-1], missing=found.missing(label))
        pairs = len(whole.gains)
        wins = Cell(f"{whole.wins} / {pairs}", whole.wins / pairs if pairs else None)
        rows.append([label, *cells, wins, *([_p_cell(whole.adjusted)] if found.test else [])])
    header = ["method", *found.columns, "wins / pairs", *(["p"] if found.test else [])]
    return Table(
        f"comparison_{found.protocol}",
        f"Difference to {found.baseline}: {TITLES[found.protocol]}",
        header,
        rows,
        _caption(found),
        records=[
            _record(found, label, column, found.differences[label, column])
            for label in found.labels
            for column in found.columns
            if (label, column) in found.differences
        ],
    )


def group_table(found: Comparison) -> Table:
    """Tabulate the mean difference of every row by dataset or test set, as in the heat map."""
    rows: list[list[Entry]] = [
        [label, *(_gain_cell(found.by_group.get((label, group))) for group in found.groups)]
        for label in found.labels
    ]
    return Table(
        f"difference_{found.protocol}",
        f"Difference to {found.baseline} by dataset",
        ["method", *found.groups],
        rows,
        f"Mean difference to {found.baseline} over shots and seeds, in percentage points.",
    )


def _caption(found: Comparison) -> str:
    parts = ["Percentage points; a pair shares dataset, number of shots and seed."]
    tests = sum(one.p is not None for one in found.differences.values())
    if tests:
        adjusted = f"Holm-adjusted for the {counted(tests, 'test')} of this table"
        parts.append(
            f"{STAR} p < {LEVEL}, {STAR}{STAR} p < {STRICT_LEVEL}: two-sided {TESTS[found.test]}, "
            f"{adjusted}. Pairs of one dataset "
            "are not independent: a small p is a hint, not proof."
        )
    few = sum("few pairs" in one.note for one in found.differences.values())
    if few:
        parts.append(f"Too few pairs for a reliable p in {few} of {counted(tests, 'test')}.")
    unlike = sum(found.over_all(label).unlike for label in found.labels)
    if unlike:
        parts.append(f"{counted(unlike, 'pair')} left out: their runs are not comparable.")
    return " ".join(parts)


def _gain_cell(found: Difference | None) -> Cell:
    if found is None:
        return Cell(DASH)
    cell = number(found.mean, sign=True, mark=found.stars)
    return replace(cell, tone={"+": "gain", MINUS: "loss"}.get(cell.text[0], ""))


def _p_cell(p: float | None) -> Cell:
    if p is None:
        return Cell(DASH)
    return Cell("< 0.001", p) if p < 0.001 else number(p, 3)


def _record(found: Comparison, label: str, column: str, one: Difference) -> dict[str, Any]:
    left_out = f"{counted(one.unlike, 'pair')} left out: their runs are not comparable"
    return {
        "method": label,
        "baseline": found.baseline,
        "column": column,
        "difference": "" if one.mean is None else one.mean,
        "pairs": len(one.gains),
        "wins": one.wins,
        "ties": len(one.gains) - one.wins - one.losses,
        "losses": one.losses,
        "test": found.test,
        "p": "" if one.p is None else one.p,
        "p_holm": "" if one.adjusted is None else one.adjusted,
        "note": "; ".join(part for part in (one.note, left_out if one.unlike else "") if part),
    }
