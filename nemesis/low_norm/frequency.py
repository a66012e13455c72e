"""Occurrence frequency of the Low-Norm Effect: how often corrupted prompts beat the learned ones.

Accuracies are averaged over the seeds first; the frequency of a setting is the number of positions
whose mean corrupted accuracy exceeds the mean original one. Nemesis, Tables A2 and A3, Figure 1b.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean

from safeio.errors import UserError

from .corruption import RESCALE, Corruption
from .study import Study

Setting = tuple[str, float]  # kind and value
Key = tuple[str, str, int]  # method, dataset, shots


@dataclass(frozen=True)
class Position:
    """Means over the seeds at one position; accuracies in %."""

    accuracy: float
    norm: float
    original_norm: float
    better: bool


class SeedMean:
    """Mean over the seeds of one method, dataset and number of shots.

    Args:
        studies: one per seed, at least one.

    Raises:
        UserError: two studies have the same seed, or prompts of different lengths.
    """

    def __init__(self, studies: Sequence[Study]) -> None:
        seeds = [study.run["seed"] for study in studies]
        name = "{method} on {dataset}, {shots} shots".format(**studies[0].run)
        if len(set(seeds)) < len(seeds):
            raise UserError(
                f"Several runs of {name} have the same seed, so they cannot be averaged; "
                "choose runs of one backbone and one setting"
            )
        if len({len(study.original["norms"]) for study in studies}) > 1:
            raise UserError(
                f"The runs of {name} have prompts of different lengths; choose runs of one length"
            )
        self.studies = list(studies)

    @property
    def length(self) -> int:
        """The number of context vectors L."""
        return len(self.studies[0].original["norms"])

    @property
    def accuracy(self) -> float:
        """Mean accuracy of the learned prompts in %."""
        return fmean(study.original["accuracy"] for study in self.studies)

    def positions(self, setting: Setting) -> dict[int, Position]:
        """Return the means at all positions where every seed's prompt was tested."""
        means = {}
        for j in range(self.length):
            corruption = Corruption(*setting, j)
            if not all(corruption in study.entries for study in self.studies):
                continue
            rows = [study.entries[corruption] for study in self.studies]
            # Exact fractions, so that rounding does not decide ties.
            gains = (
                Fraction(row["correct"] - study.original["correct"], study.num_test)
                for row, study in zip(rows, self.studies, strict=True)
            )
            means[j] = Position(
                accuracy=fmean(row["accuracy"] for row in rows),
                norm=fmean(row["norm"] for row in rows),
                original_norm=fmean(study.original["norms"][j] for study in self.studies),
                better=sum(gains, Fraction(0)) > 0,
            )
        return means

    def frequency(self, setting: Setting) -> int | None:
        """Return the number of positions with higher accuracy; None if some were not tested."""
        positions = self.positions(setting)
        if len(positions) < self.length:
            return None
        return sum(position.better for position in positions.values())

    def norm_change(self, setting: Setting) -> float:
        """Return the mean change of the corrupted vectors' norm over positions and seeds."""
        positions = self.positions(setting).values()
        return fmean(position.norm - position.original_norm for position in positions)

    def low_norm_frequency(self, settings: Iterable[Setting]) -> int | None:
        """Return the sum of `frequency` over factors below 1 (Figure 1b); None if incomplete."""
        counts = [self.frequency(s) for s in settings if s[0] == RESCALE and s[1] < 1]
        known = [count for count in counts if count is not None]
        return sum(known) if known and len(known) == len(counts) else None


def group_by_seed(studies: Iterable[Study]) -> dict[Key, SeedMean]:
    """Group studies by (method, dataset, shots).

    Raises:
        UserError: see `SeedMean`.
    """
    groups: defaultdict[Key, list[Study]] = defaultdict(list)
    for study in studies:
        groups[study.run["method"], study.run["dataset"], study.run["shots"]].append(study)
    return {key: SeedMean(groups[key]) for key in sorted(groups)}
