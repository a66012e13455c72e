"""Compare every row with a baseline by paired tests over datasets, shots and seeds."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from dassl.utils.tools import get_most_similar_str_to_a_from_b
from safeio.errors import UserError

from .checks import differences, stated
from .paired_tests import LEVEL, STRICT_LEVEL, TIE, holm, paired_test
from .results import (
    COLUMNS,
    Run,
    Runs,
    is_zero_shot,
    members_of,
    method_of,
    paper_order,
    shots_name,
    trained,
    trained_on,
)
from .table import STAR

DEFAULT_BASELINE = "CoOp"
ALL = "all"

Place = tuple[str, int, str, int]  # dataset, shots, column, seed


class Pair(NamedTuple):
    """A run of a row and the baseline's run on the same data with the same seed."""

    label: str
    column: str  # number of shots, half of the classes, or test set
    group: str  # column of the heat map: the dataset, with its half; or the test set
    gain: float | None  # None if the two runs are not comparable


@dataclass(frozen=True)
class Difference:
    """The difference of a row to the baseline over some pairs.

    Attributes:
        gains: one per comparable pair.
        unlike: number of pairs left out, whose runs are not comparable.
        p: two-sided p-value; None if there is no test.
        note: why there is no test, or a caveat.
        adjusted: p after Holm's adjustment for the tests of a table.
    """

    gains: tuple[float, ...]
    unlike: int = 0
    p: float | None = None
    note: str = ""
    adjusted: float | None = None

    @property
    def mean(self) -> float | None:
        """Mean difference in percentage points; None without pairs."""
        return fmean(self.gains) if self.gains else None

    @property
    def wins(self) -> int:
        """Number of pairs with a higher accuracy than the baseline's."""
        return sum(gain > 0 for gain in self.gains)

    @property
    def losses(self) -> int:
        """Number of pairs with a lower accuracy."""
        return sum(gain < 0 for gain in self.gains)

    @property
    def stars(self) -> str:
        """One star for an adjusted p below 0.05, two below 0.01."""
        if self.adjusted is None:
            return ""
        return STAR * ((self.adjusted < LEVEL) + (self.adjusted < STRICT_LEVEL))


@dataclass(frozen=True)
class Comparison:
    """All rows compared with the baseline in one protocol.

    Attributes:
        protocol: few_shot, base_to_new or transfer.
        baseline: name of its row.
        test: "wilcoxon" or "t"; empty if all runs have one seed, so that there is no test.
        columns: in order; the last is "all" if there are several.
        groups: columns of the heat map.
        differences: by (row, column).
        by_group: by (row, group); without tests.
    """

    protocol: str
    baseline: str
    test: str
    columns: list[str]
    groups: list[str]
    differences: Mapping[tuple[str, str], Difference]
    by_group: Mapping[tuple[str, str], Difference]

    @property
    def labels(self) -> list[str]:
        """The rows."""
        return list(dict.fromkeys(label for label, _ in self.differences))

    def over_all(self, label: str) -> Difference:
        """Return a row's difference over all pairs."""
        return self.differences[label, self.columns[-1]]

    def missing(self, label: str) -> str:
        """Return how many datasets or test sets a row has, if not all; else an empty text."""
        found = sum((label, group) in self.by_group for group in self.groups)
        what = "test sets" if self.protocol == "transfer" else "datasets"
        return f"{found} of {len(self.groups)} {what}" if found < len(self.groups) else ""

    @property
    def complete(self) -> list[str]:
        """The rows with pairs on every dataset or test set, whose averages are comparable."""
        return [label for label in self.labels if not self.missing(label)]

    @property
    def best(self) -> str | None:
        """The row with the largest mean difference, of the complete ones if any; or None."""
        means = {label: self.over_all(label).mean for label in self.complete or self.labels}
        known = {label: mean for label, mean in means.items() if mean is not None}
        return max(known, key=lambda label: known[label]) if known else None


def headline(compared: Sequence[Comparison]) -> Comparison | None:
    """Return the comparison for the first screen: the first one with several numbers per row."""
    several = (found for found in compared if len(found.columns) > 1 or len(found.groups) > 1)
    return next(several, compared[0] if compared else None)


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


def compare(runs: Runs, baseline: str, test: str = "wilcoxon") -> list[Comparison]:
    """Compare every row with the baseline, protocol by protocol; `test` is a key of `TESTS`."""
    made = []
    for protocol in COLUMNS:
        pairs = list(_pairs(protocol, members_of(protocol, runs), baseline))
        if pairs:
            made.append(_comparison(protocol, pairs, baseline, "" if one_seed(runs) else test))
    return made


def one_seed(runs: Runs) -> bool:
    """Return whether all trained runs have the same seed, so that no difference can be tested."""
    return len({run["seed"] for _, run in runs if not is_zero_shot(trained(run))}) == 1


def _pairs(protocol: str, runs: Runs, baseline: str) -> Iterator[Pair]:
    cells: defaultdict[str, dict[Place, Run]] = defaultdict(dict)
    for label, run in runs:
        column = COLUMNS[protocol](run)
        cells[label][(*trained_on(run), column, run["seed"])] = run
    for label in cells:
        for place, run in cells[label].items():
            other = _counterpart(place, run, cells.get(baseline, {}))
            if label == baseline or other is None or is_zero_shot(trained(run)):
                continue
            gain = run["accuracy"] - other["accuracy"]
            unlike = any(
                not stated(trait, label, baseline) for trait, *_ in differences([other, run])
            )
            yield Pair(
                label,
                shots_name(place[1]) if protocol == "few_shot" else place[2],
                _group(protocol, place),
                None if unlike else 0.0 if abs(gain) < TIE else gain,
            )


def _group(protocol: str, place: Place) -> str:
    dataset, _, column, _ = place
    if protocol == "base_to_new":
        return f"{dataset}, {column}"
    return dataset if protocol == "few_shot" else column


def _counterpart(place: Place, run: Run, cells: Mapping[Place, Run]) -> Run | None:
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


def _comparison(protocol: str, pairs: Sequence[Pair], baseline: str, test: str) -> Comparison:
    columns = sorted({pair.column for pair in pairs}, key=_column_order)
    columns += [ALL] if len(columns) > 1 else []
    by_column: defaultdict[tuple[str, str], list[Pair]] = defaultdict(list)
    by_group: defaultdict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_group[pair.label, pair.group].append(pair)
        for column in dict.fromkeys((pair.column, columns[-1])):
            by_column[pair.label, column].append(pair)
    tested = {key: _difference(found, test) for key, found in by_column.items()}
    values = {key: found.p for key, found in tested.items() if found.p is not None}
    adjusted = dict(zip(values, holm(list(values.values())), strict=True))
    return Comparison(
        protocol,
        baseline,
        test,
        columns,
        sorted({pair.group for pair in pairs}, key=paper_order),
        {
            key: Difference(one.gains, one.unlike, one.p, one.note, adjusted.get(key))
            for key, one in tested.items()
        },
        {key: _difference(found, "") for key, found in by_group.items()},
    )


def _difference(pairs: Sequence[Pair], test: str) -> Difference:
    gains = tuple(pair.gain for pair in pairs if pair.gain is not None)
    p, note = paired_test(gains, test) if test else (None, "")
    return Difference(gains, len(pairs) - len(gains), p, note)


def _column_order(column: str) -> tuple[Any, ...]:
    first = column.split()[0]
    return (int(first) if first.isdigit() else 0, paper_order(column))
