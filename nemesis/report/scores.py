"""Accuracies of a table's cells: collected over seeds and averaged over datasets."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safeio.errors import UserError

from .results import Run, counted, is_zero_shot

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Score:
    """Accuracies (in %) of a cell, one per seed; none if no run of the cell is finished.

    Attributes:
        accuracies: ordered by seed; an average over cells may have a single one.
        missing: what is incomplete, such as "2 of 3 seeds"; empty if complete.
        seeds: of the accuracies; empty for a mean of means.
    """

    accuracies: tuple[float, ...]
    missing: str = ""
    seeds: tuple[int, ...] = ()

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float:
        """Sample standard deviation over the seeds; 0 for a single seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0

    @property
    def text(self) -> str:
        """Mean ± standard deviation, or only the mean of one accuracy."""
        spread = f" ± {self.std:.1f}" if len(self.accuracies) > 1 else ""
        return f"{self.mean:.1f}{spread}"


Scores = dict[Key, Score]


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
    missing = next((score.missing for score in present if score.missing), "")
    if len(present) < len(scores):
        missing = f"{len(present)} of {len(scores)} {what}"
    return Score((statistics.fmean(score.mean for score in present),), missing)


def average_by_seed(scores: Sequence[Score | None], what: str = "datasets") -> Score | None:
    """Return `average`, with the deviation over seeds if all numbers are complete, of equal seeds.

    Args:
        scores: see `average`.
        what: see `average`.
    """
    mean = average(scores, what)
    if mean is None or mean.missing:
        return mean
    present = [score for score in scores if score is not None]
    seeds = present[0].seeds
    if not seeds or any(score.seeds != seeds for score in present):
        return mean
    columns = zip(*(score.accuracies for score in present), strict=True)
    return Score(tuple(map(statistics.fmean, columns)), seeds=seeds)


def gather(keyed: Iterable[tuple[Key, Run]], seeds: int = 0) -> Scores:
    """Collect the runs' accuracies over seeds by key.

    Args:
        keyed: (key of the cell, run); the accuracy of an unfinished run is None.
        seeds: minimum number of seeds of a complete cell. Zero-shot CLIP, which does not depend on
            the seed, needs one.

    Raises:
        UserError: two runs have the same key and seed.
    """
    cells: defaultdict[Key, dict[int, Run]] = defaultdict(dict)
    for key, run in keyed:
        other = cells[key].setdefault(run["seed"], run)
        if other is not run and not is_zero_shot(run):
            raise UserError(
                f"{other['folder']} and {run['folder']} are two runs of {key[0]} on "
                f"{run['dataset']} with the same settings, data and seed {run['seed']}; remove "
                "one or name folders that hold only one"
            )
    wanted = max(seeds, 1, *(len(runs) for runs in cells.values()))
    return {key: _score(runs, wanted) for key, runs in cells.items()}


def _score(runs: Mapping[int, Run], wanted: int) -> Score:
    found = {seed: runs[seed]["accuracy"] for seed in sorted(runs)}
    found = {seed: accuracy for seed, accuracy in found.items() if accuracy is not None}
    if all(map(is_zero_shot, runs.values())):
        wanted = max(1, len(found))
    missing = "" if len(found) == wanted else f"{len(found)} of {counted(wanted, 'seed')}"
    return Score(tuple(found.values()), missing, tuple(found))
