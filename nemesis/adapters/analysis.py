"""Combinations of adapters, and the measures of their quality, as functions of tensors.

A solution is a state dict of `trainers.core.lora.Adapters` with its gamma. W + gamma B A is linear
in the product B A, not in the factors, so that the two kinds of interpolation are different curves.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from trainers.core.lora import deltas_of

State = Mapping[str, Tensor]
FACTORS, DELTA = WAYS = ("factors", "delta")
EXACT_PLAYERS = 12  # of the Shapley values by all subsets


def combine(deltas: Sequence[State], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return sum_k w_k delta_k by key."""
    return {
        key: sum((w * one[key] for w, one in zip(weights, deltas, strict=True)), torch.zeros(()))
        for key in deltas[0]
    }


def rank_sum(
    states: Sequence[State], gammas: Sequence[float], weights: Sequence[float], gamma: float
) -> dict[str, Tensor]:
    """Return the adapter of rank sum r_k whose update with `gamma` is sum_k w_k gamma_k B_k A_k."""
    factors = [w * own / gamma for w, own in zip(weights, gammas, strict=True)]
    merged = {}
    for name in states[0]:
        parts = [state[name].float() for state in states]
        if name.endswith(".B"):
            scaled = [factor * part for factor, part in zip(factors, parts, strict=True)]
            merged[name] = torch.cat(scaled, dim=1)
        else:
            merged[name] = torch.cat(parts)
    return merged


def interpolate(
    first: State, second: State, gamma: float, weight: float, way: str
) -> dict[str, Tensor]:
    """Return the deltas at the weight of the second of two solutions of equal shapes.

    Args:
        first: a solution.
        second: the other one.
        gamma: of both.
        weight: from 0 (the first) to 1 (the second).
        way: `factors` interpolates A and B each, `delta` their products.
    """
    weights = (1 - weight, weight)
    if way == FACTORS:
        return deltas_of(combine([first, second], weights), gamma)
    return combine([deltas_of(first, gamma), deltas_of(second, gamma)], weights)


def barrier(weights: Sequence[float], losses: Sequence[float]) -> float:
    """Return max_l [loss(l) - (1 - l) loss(0) - l loss(1)] over weights l from 0 to 1."""
    first, last = losses[0], losses[-1]
    return max(loss - (1 - w) * first - w * last for w, loss in zip(weights, losses, strict=True))


def players_of(keys: Sequence[str]) -> list[str]:
    """Return the blocks of adapter keys, such as "vision.0"."""
    return list(dict.fromkeys(key.rpartition(".")[0] for key in keys))


def keep_players(deltas: State, players: Sequence[str], subset: int) -> dict[str, Tensor]:
    """Return the deltas of the blocks j whose bit j of the subset is set."""
    kept = {player for bit, player in enumerate(players) if subset >> bit & 1}
    return {key: one for key, one in deltas.items() if key.rpartition(".")[0] in kept}


def shapley(
    values: Float[Tensor, "subsets measures"],
) -> Float[Tensor, "players measures"]:
    """Return the Shapley values of n players from the values of all 2^n subsets.

    phi_j = sum over S without j of |S|! (n - |S| - 1)! / n! (v(S + j) - v(S)), so that
    sum phi = v(all) - v(none). Bit j of a subset's index says whether it has player j.
    """
    count = len(values).bit_length() - 1
    indices = torch.arange(len(values))
    sizes = sum((indices >> bit & 1 for bit in range(count)), torch.zeros_like(indices))
    log = torch.lgamma(torch.arange(1, count + 2, dtype=torch.float64))  # log k!
    rows = []
    for bit in range(count):
        without = indices[(indices >> bit & 1) == 0]
        size = sizes[without]
        weight = (log[size] + log[count - size - 1] - log[count]).exp()
        gain = values[without | 1 << bit] - values[without]
        rows.append((weight[:, None] * gain).sum(0))
    return torch.stack(rows)


def sampled_shapley(
    value: Callable[[int], Sequence[float]], count: int, permutations: int, seed: int
) -> Float[Tensor, "players measures"]:
    """Return the mean marginal contribution of each player over random orders.

    The sum over players is v(all) - v(none) exactly.
    """
    rng, total = random.Random(seed), torch.zeros(count, len(value(0)), dtype=torch.float64)
    for _ in range(permutations):
        order = rng.sample(range(count), count)
        subsets = [sum(1 << player for player in order[:size]) for size in range(count + 1)]
        for player, (before, after) in zip(order, pairwise(subsets), strict=True):
            gain = [a - b for a, b in zip(value(after), value(before), strict=True)]
            total[player] += torch.tensor(gain, dtype=torch.float64)
    return total / permutations


def removal_order(phi: Float[Tensor, " players"]) -> list[int]:
    """Return the players from the least to the most valuable."""
    order: Any = phi.argsort(stable=True).tolist()
    return list(order)
