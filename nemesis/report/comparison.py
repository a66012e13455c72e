"""Compare every row with a baseline by paired tests over datasets and seeds."""

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from scipy import stats

from dassl.utils.tools import get_most_similar_str_to_a_from_b
from nemesis.report.protocols import COLUMNS, trained_on
from nemesis.report.results import method_of
from nemesis.report.scores import AVERAGE, Run, Runs, is_zero_shot, natural_order, paper_order
from safeio.errors import UserError

from .accuracy import shots_name, transfers
from .checks import differences, members_of
from .listing import DASH, Item, Listing, number
from .settings import trained

DEFAULT_BASELINE = "CoOp"
TESTS = {"wilcoxon": "Wilcoxon signed-rank test", "t": "paired t test"}
LEVEL = 0.05
TIE = 1e-9  # equal counts can give accuracies that differ in the last bit

Place = tuple[str, int, str, int]  # dataset, shots, column, seed


@dataclass
class Pairs:
    """Differences between a row and the baseline in one column.

    Attributes:
        gains: accuracy minus the baseline's, one per pair, in %.
        unlike: number of pairs left out because the two runs differ in a trait.
    """

    gains: list[float] = field(default_factory=list)
    unlike: int = 0


@dataclass(frozen=True)
class Verdict:
    """Result of a paired test.

    Attributes:
        p: two-sided p-value; None if the test does not apply.
        note: why it does not apply, or a caveat.
    """

    p: float | None
    note: str = ""


def paired_test(gains: Sequence[float], test: str = "wilcoxon") -> Verdict:
    """Test whether paired differences are centred at zero, two-sided.

    Args:
        gains: the differences. The Wilcoxon test leaves out zeros.
        test: "wilcoxon" or "t".
    """
    if test == "t":
        return _t_test(gains)
    ranked = [gain for gain in gains if gain]
    if not ranked:
        return Verdict(None, "no pair differs")
    p = float(stats.wilcoxon(ranked).pvalue)
    lowest = 2.0 ** (1 - len(ranked))
    if lowest > LEVEL:
        return Verdict(
            p, f"too few pairs: with {len(ranked)} that differ, p is never below {lowest:g}"
        )
    return Verdict(p)


def _t_test(gains: Sequence[float]) -> Verdict:
    if len(gains) < 2:
        return Verdict(None, "too few pairs: the t test needs 2")
    if max(gains) - min(gains) < TIE:
        return Verdict(None, "all differences are equal")
    p = float(stats.ttest_1samp(gains, 0.0).pvalue)
    few = "few pairs: p assumes normally distributed differences" if len(gains) < 10 else ""
    return Verdict(p, few)


def choose_baseline(runs: Runs, wanted: str | None) -> str | None:
    """Return the name of the baseline's row.

    Args:
        runs: with their row names.
        wanted: name of a row, or of a method with one row; None for CoOp, if present.

    Raises:
        UserError: the row does not exist, or the method has several rows.
    """
    labels = list(dict.fromkeys(label for label, _ in runs))
    name = wanted or DEFAULT_BASELINE
    if name in labels:
        return name
    rows = sorted({label for label, run in runs if method_of(trained(run)) == name})
    if len(rows) == 1:
        return rows[0]
    if wanted is None:
        return None
    if rows:
        names = ", ".join(f'"{row}"' for row in rows)
        raise UserError(f'--baseline "{name}" has several rows; name one of them: {names}')
    nearest = get_most_similar_str_to_a_from_b(name, labels)
    raise UserError(
        f'--baseline "{name}" is not a row; did you mean "{nearest}"? '
        f"Available: {', '.join(sorted(labels))}"
    )


def compare(runs: Runs, baseline: str, test: str = "wilcoxon") -> list[Listing]:
    """Compare every row with the baseline, protocol by protocol.

    A pair shares the dataset, number of shots, test set and seed.

    Args:
        runs: with their row names.
        baseline: name of a row.
        test: "wilcoxon" or "t".
    """
    listings = []
    for protocol, title in (
        ("few-shot", "accuracy over shots"),
        ("base-to-new", "base to new classes"),
        ("transfer", "transfer"),
    ):
        used = transfers(runs) if protocol == "transfer" else members_of(protocol, runs)
        pairs = collect_pairs(protocol, used, baseline)
        if pairs:
            name = f"comparison_{protocol.replace('-', '_')}"
            listings.append(_listing(name, title, pairs, baseline, test))
    return listings


def collect_pairs(protocol: str, runs: Runs, baseline: str) -> dict[tuple[str, str], Pairs]:
    """Collect the differences to the baseline by row and column; "all" is over all columns."""
    cells: defaultdict[str, dict[Place, Run]] = defaultdict(dict)
    for label, run in runs:
        dataset, shots = trained_on(run)
        cells[label][dataset, shots, _column(protocol, run), run["seed"]] = run
    if baseline not in cells:
        return {}
    pairs: defaultdict[tuple[str, str], Pairs] = defaultdict(Pairs)
    for label in sorted(set(cells) - {baseline}, key=natural_order):
        for place, run in cells[label].items():
            other = _counterpart(place, run, cells[baseline])
            if other is None or is_zero_shot(trained(run)):
                continue
            unlike = any(True for _ in differences([other, run]))
            gain = run["accuracy"] - other["accuracy"]
            for column in (place[2], "all"):
                if unlike:
                    pairs[label, column].unlike += 1
                else:
                    pairs[label, column].gains.append(0.0 if abs(gain) < TIE else gain)
    return dict(pairs)


def _column(protocol: str, run: Run) -> str:
    """Return a run's column: its shots, half of the classes, or test set."""
    if protocol == "few-shot":
        return shots_name(trained_on(run)[1])
    return COLUMNS[protocol](run)


def _counterpart(place: Place, run: Run, cells: dict[Place, Run]) -> Run | None:
    """Return the baseline's run of a cell; zero-shot CLIP has one for all shots and seeds."""
    if place in cells:
        return cells[place]
    for (dataset, *_), other in cells.items():
        same = dataset == place[0] and other["dataset"] == run["dataset"]
        if same and is_zero_shot(trained(other)) and _same_images(run, other):
            return other
    return None


def _same_images(run: Run, other: Run) -> bool:
    return all(run[name] == other[name] for name in ("subsample_classes", "target_domains"))


def _listing(
    name: str, title: str, pairs: dict[tuple[str, str], Pairs], baseline: str, test: str
) -> Listing:
    columns = list(dict.fromkeys(column for _, column in pairs))
    columns.sort(key=_column_order)
    shown = [column for column in columns if column != "all" or len(columns) != 2]
    rows: list[list[Item]] = []
    records: list[dict[str, Any]] = []
    for label in dict.fromkeys(label for label, _ in pairs):
        for column in shown:
            if (label, column) in pairs:
                found = pairs[label, column]
                verdict = paired_test(found.gains, test)
                rows.append(_row(label, column, found, verdict))
                records.append(_record(label, column, baseline, found, verdict, test))
    tests = sum(record["p"] != "" for record in records)
    caption = (
        f"Difference to {baseline} in percentage points; a pair shares dataset, number of shots "
        f"and seed; two-sided p of the {TESTS[test]}. Pairs of one dataset are not independent, "
        f"and p is not adjusted for the {tests} test{'s' if tests != 1 else ''} of this table: a "
        "small p is a hint, not proof."
    )
    header = ["method", "on", "difference", "pairs", "wins", "ties", "losses", "p", "note"]
    return Listing(name, f"Compared with {baseline}: {title}", caption, header, rows, records)


def _column_order(column: str) -> tuple[Any, ...]:
    words = column.split()
    shots = int(words[0]) if words[0].isdigit() else 0
    return (column == "all", column == AVERAGE, shots, *paper_order(column))


def _note(found: Pairs, verdict: Verdict) -> str:
    unlike = f"{found.unlike} pairs left out: their runs are not comparable" if found.unlike else ""
    return "; ".join(part for part in (verdict.note, unlike) if part)


def _counts(gains: Sequence[float]) -> tuple[int, int, int]:
    wins, losses = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    return wins, len(gains) - wins - losses, losses


def _row(label: str, column: str, found: Pairs, verdict: Verdict) -> list[Item]:
    gains = found.gains
    return [
        Item(label),
        Item(column),
        number(statistics.fmean(gains) if gains else None, sign=True),
        *(Item(str(count), count) for count in (len(gains), *_counts(gains))),
        Item(show_p(verdict.p), verdict.p),
        Item(_note(found, verdict)),
    ]


def _record(
    label: str, column: str, baseline: str, found: Pairs, verdict: Verdict, test: str
) -> dict[str, Any]:
    wins, ties, losses = _counts(found.gains)
    return {
        "method": label,
        "baseline": baseline,
        "column": column,
        "difference": statistics.fmean(found.gains) if found.gains else "",
        "pairs": len(found.gains),
        "wins": wins,
        "ties": ties,
        "losses": losses,
        "test": test,
        "p": "" if verdict.p is None else verdict.p,
        "note": _note(found, verdict),
    }


def show_p(p: float | None) -> str:
    """Format a p-value."""
    if p is None or math.isnan(p):
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
