"""Does normalisation pay where the Low-Norm Effect is frequent, and does PAN find its positions?

The paper's claims (Nemesis, sections 3.1 and 4.2): the effect is frequent with few shots, and that
is where normalising the prompts gains. Both are numbers of the same runs: for every dataset and
number of shots, the frequency of the effect in the baseline's prompts (`frequency`), and the mean
paired difference of each row to the baseline.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, NamedTuple

from scipy import stats

from nemesis.report.comparison import Difference
from nemesis.report.paired_tests import holm, paired_test
from nemesis.report.results import Run, Runs, natural_order
from nemesis.report.table import Cell, Entry, Table

from .corruption import RESCALE, Corruption
from .frequency import SeedMean, Setting
from .study import Study

Place = tuple[str, int]  # dataset and shots


class Correlation(NamedTuple):
    """Spearman's rank correlation and its two-sided p-value."""

    rho: float
    p: float


def spearman(one: Sequence[float], other: Sequence[float]) -> Correlation | None:
    """Return the rank correlation; None for fewer than three pairs or a constant side."""
    if len(one) < 3 or len(set(one)) < 2 or len(set(other)) < 2:
        return None
    found = stats.spearmanr(one, other)
    return Correlation(float(found.statistic), float(found.pvalue))


@dataclass(frozen=True)
class Gains:
    """Paired differences of one row to the baseline, in points.

    Attributes:
        label: the row.
        by_place: the differences of all seeds, by dataset and shots.
    """

    label: str
    by_place: Mapping[Place, Sequence[float]]

    def mean(self, place: Place) -> float:
        """Return the mean difference at a place."""
        return fmean(self.by_place[place])

    def over_shots(self) -> dict[int, tuple[float, float]]:
        """Return shots -> mean over datasets and seeds, and its standard error."""
        pairs: defaultdict[int, list[float]] = defaultdict(list)
        for (_, shots), gains in self.by_place.items():
            pairs[shots] += gains
        return {
            shots: (fmean(all_), _standard_error(all_)) for shots, all_ in sorted(pairs.items())
        }

    def difference(self) -> Difference:
        """Return the difference over all places and seeds, tested."""
        gains = tuple(gain for gains in self.by_place.values() for gain in gains)
        return Difference(gains, p=paired_test(gains)[0])

    def with_frequency(self, frequencies: Mapping[Place, int]) -> Correlation | None:
        """Return the correlation of the mean differences with the effect's frequency."""
        places = [place for place in self.by_place if place in frequencies]
        return spearman(
            [frequencies[place] for place in places], [self.mean(place) for place in places]
        )


def _standard_error(values: Sequence[float]) -> float:
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def gains_of_rows(runs: Runs, baseline: str) -> list[Gains]:
    """Pair the runs of every row with the baseline's of the same dataset, shots and seed."""
    found: defaultdict[str, dict[tuple[Place, int], Run]] = defaultdict(dict)
    for label, run in runs:
        found[label][(run["dataset"], run["shots"]), run["seed"]] = run
    rows = []
    for label in sorted(found, key=natural_order):
        pairs: defaultdict[Place, list[float]] = defaultdict(list)
        for (place, seed), run in found[label].items():
            other = found[baseline].get((place, seed))
            if other is not None and label != baseline:
                pairs[place].append(run["accuracy"] - other["accuracy"])
        if pairs:
            rows.append(Gains(label, dict(pairs)))
    return rows


def frequencies_of(cells: Iterable[SeedMean], settings: Sequence[Setting]) -> dict[Place, int]:
    """Return the frequency of the Low-Norm Effect by dataset and shots."""
    found = {}
    for cell in cells:
        run, count = cell.studies[0].run, cell.low_norm_frequency(settings)
        if count is not None:
            found[run["dataset"], run["shots"]] = count
    return found


def gain_table(rows: Sequence[Gains], frequencies: Mapping[Place, int], of: int) -> Table:
    """Make a table with a row per dataset and shots: the effect's frequency, and every gain."""
    places = sorted({place for row in rows for place in row.by_place})
    body: list[list[Entry]] = [
        [
            *place,
            frequencies.get(place),
            *(Cell(f"{row.mean(place):+.2f}") if place in row.by_place else None for row in rows),
        ]
        for place in places
    ]
    caption = (
        f"Low-norm: at how many of {of} positions and factors below 1 the baseline's prompts "
        "improve when the vector is rescaled (mean accuracies of the seeds). Then each row's mean "
        "difference to the baseline in points, paired by seed."
    )
    header = ["dataset", "shots", "low-norm", *(row.label for row in rows)]
    return Table("gain_by_place", "Gain by dataset and shots", header, body, caption)


def correlation_table(rows: Sequence[Gains], frequencies: Mapping[Place, int]) -> Table:
    """Make a table with a row per method: gain, paired test (Holm), correlation with the effect."""
    pairs = {row.label: row.difference() for row in rows}
    known = {label: found.p for label, found in pairs.items() if found.p is not None}
    adjusted = dict(zip(known, holm(list(known.values())), strict=True))
    body: list[list[Entry]] = []
    for row in rows:
        pair, found = pairs[row.label], row.with_frequency(frequencies)
        body.append(
            [
                row.label,
                Cell(f"{pair.mean:+.2f}"),
                Cell(f"{pair.wins} / {pair.losses} of {len(pair.gains)}"),
                _p(adjusted.get(row.label)),
                Cell(f"{found.rho:+.2f}") if found else None,
                _p(found.p if found else None),
            ]
        )
    caption = (
        "Gain: mean difference to the baseline in points over all datasets, shots and seeds; p: "
        "Wilcoxon signed-rank test, Holm's adjustment over the rows. Correlation: Spearman's, over "
        "datasets and shots, between the frequency of the Low-Norm Effect in the baseline's "
        "prompts and the mean gain."
    )
    header = ["method", "gain", "wins / losses", "p (Holm)", "correlation", "p of it"]
    return Table("gain_and_frequency", "Gain and the Low-Norm Effect", header, body, caption)


def _p(value: float | None) -> Cell | None:
    if value is None:
        return None
    return Cell("< 0.001" if value < 0.001 else f"{value:.3f}")


def selections(history: Iterable[Mapping[str, Any]]) -> list[int] | None:
    """Return how often PAN selected each position in a whole training; None without PAN."""
    counts = [line["selections"] for line in history if line.get("selections")]
    return [sum(column) for column in zip(*counts, strict=True)] if counts else None


def agreement(selected: Sequence[int], study: Study, factor: float) -> Correlation | None:
    """Correlate PAN's selections in training with the corruption study of the learned prompts.

    Args:
        selected: how often PAN selected each position.
        study: of the run's own prompts.
        factor: of RESCALE, PAN's tau.
    """
    changes = []
    for position in range(len(selected)):
        entry = study.entries.get(Corruption(RESCALE, factor, position))
        if entry is None:
            return None
        changes.append(entry["accuracy_change"])
    return spearman(selected, changes)


def agreement_table(found: Mapping[int, Sequence[float]], label: str) -> Table:
    """Make a table of the runs' correlations by shots; see `agreement`."""
    body: list[list[Entry]] = []
    groups = [*sorted(found.items()), ("all", [rho for values in found.values() for rho in values])]
    for shots, values in groups:
        p = paired_test(values)[0] if values else None
        mean = Cell(f"{fmean(values):+.2f}") if values else None
        positive = Cell(f"{sum(v > 0 for v in values)} of {len(values)}")
        body.append([str(shots), mean, positive, _p(p)])
    caption = (
        f"{label}: Spearman's correlation, over the positions of a run's prompt, between the "
        "number of PAN's selections in training and the change of the test accuracy when the "
        "learned vector is rescaled by tau afterwards; mean over the runs, and the Wilcoxon test "
        "that it is zero."
    )
    header = ["shots", "mean correlation", "positive", "p"]
    return Table("selections", "PAN's selections and the corruption study", header, body, caption)
