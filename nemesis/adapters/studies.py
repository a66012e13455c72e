"""What the commands measure: merged, interpolated and pruned adapters, as tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nemesis.report.table import Table, number

from .adapter_runs import AdapterRun
from .analysis import (
    EXACT_PLAYERS,
    WAYS,
    barrier,
    combine,
    interpolate,
    players_of,
    removal_order,
    sampled_shapley,
    shapley,
)
from .scoring import Score, Scorer

MERGE_COLUMNS = ("run", "dataset", "rank", "weight", "zero-shot", "alone", "merged")


def merge_row(
    run: AdapterRun, scorer: Scorer | None, runs: Sequence[AdapterRun], weights: Sequence[float]
) -> list[Any]:
    """Return a run's row of `MERGE_COLUMNS`: accuracies on its test images, None without them."""
    weight = next(w for w, one in zip(weights, runs, strict=True) if one is run)
    row: list[Any] = [run.path.as_posix(), run.cfg.DATASET.NAME, run.facts["r"], number(weight)]
    if scorer is None:
        return [*row, None, None, None]
    merged = combine([one.deltas() for one in runs], weights)
    scores = [scorer.score(scorer.logits(one)) for one in ({}, run.deltas(), merged)]
    return [*row, *(number(one.accuracy, 1) for one in scores)]


@dataclass(frozen=True)
class Interpolation:
    """Scores along the line between two runs.

    Attributes:
        weights: of the second run, from 0 to 1.
        scores: by kind, `factors` or `delta`, one per weight.
    """

    weights: Sequence[float]
    scores: dict[str, list[Score]]

    @property
    def barriers(self) -> dict[str, float]:
        """The barrier of the loss by kind."""
        return {
            way: barrier(self.weights, [one.loss for one in scores])
            for way, scores in self.scores.items()
        }

    def table(self) -> Table:
        """Return a row per weight, with the barriers in the caption."""
        columns = [f"{name} ({way})" for way in WAYS for name in ("loss", "accuracy")]
        rows = [
            [number(weight), *(cell for way in WAYS for cell in _cells(self.scores[way][at]))]
            for at, weight in enumerate(self.weights)
        ]
        caption = "; ".join(f"barrier of the loss ({w}) {b:.4f}" for w, b in self.barriers.items())
        text = f"{caption}. factors: A and B are interpolated; delta: their products B A."
        return Table("interpolate", "Between two runs", ["weight", *columns], rows, text)


def _cells(score: Score) -> list[Any]:
    return [number(score.loss, 4), number(score.accuracy, 1)]


def interpolation(
    first: AdapterRun, second: AdapterRun, scorer: Scorer, points: int
) -> Interpolation:
    """Score `points` equally spaced solutions between two runs, both ends included."""
    weights = [at / (points - 1) for at in range(points)]
    scores = {
        way: [
            scorer.score(scorer.logits(interpolate(first.state, second.state, first.gamma, w, way)))
            for w in weights
        ]
        for way in WAYS
    }
    return Interpolation(weights, scores)


@dataclass(frozen=True)
class Pruning:
    """Shapley values of a run's blocks.

    Attributes:
        players: the blocks, such as "vision.0".
        phi: of the accuracy in percent and of minus the cross-entropy.
        alone: scores with only this block's adapters.
        without: scores with all but this block's adapters.
        removed: scores after switching off the blocks one by one, the least valuable first (by
            accuracy), from all to none.
        order: the blocks in this order.
        exact: whether phi is of all subsets.
    """

    players: Sequence[str]
    phi: Float[Tensor, "players 2"]
    alone: Sequence[Score]
    without: Sequence[Score]
    removed: Sequence[Score]
    order: Sequence[int]
    exact: bool

    def table(self) -> Table:
        """Return a row per block, with the sums in the caption."""
        columns = ["block", "Shapley (accuracy)", "Shapley (-loss)"]
        columns += ["accuracy alone", "accuracy without", "switched off as", "accuracy then"]
        rows: list[list[Any]] = []
        for at, player in enumerate(self.players):
            place = list(self.order).index(at)
            rows.append(
                [
                    player,
                    *(number(value, 3, sign=True) for value in self.phi[at].tolist()),
                    number(self.alone[at].accuracy, 1),
                    number(self.without[at].accuracy, 1),
                    place + 1,
                    number(self.removed[place + 1].accuracy, 1),
                ]
            )
        kind = "All subsets" if self.exact else "Sampled orders"
        full, none = self.removed[0], self.removed[-1]
        caption = (
            f"{kind}: the values sum to the accuracy of all blocks minus that of none, "
            f"{full.accuracy:.1f} - {none.accuracy:.1f}, and to the difference of their losses."
        )
        return Table("prune", "Shapley values of the adapted blocks", columns, rows, caption)


def pruning(run: AdapterRun, scorer: Scorer, permutations: int, seed: int) -> Pruning:
    """Compute the Shapley values of a run's blocks, exactly up to 12 blocks, else sampled."""
    deltas = run.deltas()
    players = players_of(list(deltas))
    count = len(players)
    of_subset = scorer.subset_logits(deltas, players)

    @cache
    def score(subset: int) -> Score:
        return scorer.score(of_subset(subset))

    def value(subset: int) -> tuple[float, float]:
        return score(subset).accuracy, -score(subset).loss

    exact = count <= EXACT_PLAYERS
    if exact:
        values = [value(subset) for subset in range(1 << count)]
        phi = shapley(torch.tensor(values, dtype=torch.float64))
    else:
        phi = sampled_shapley(value, count, permutations, seed)
    everything, order = (1 << count) - 1, removal_order(phi[:, 0])
    left = accumulate(order, lambda subset, player: subset & ~(1 << player), initial=everything)
    return Pruning(
        players,
        phi,
        [score(1 << at) for at in range(count)],
        [score(everything & ~(1 << at)) for at in range(count)],
        [score(subset) for subset in left],
        order,
        exact,
    )
