"""Tip-Adapter's grid search against a loop in float64, and the keys of a checkpoint."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from trainers.core.key_cache import KeyCache, grid_values, search

CLASSES = 7


def random_cache(count: int, seed: int, single: bool = False) -> tuple[KeyCache, Tensor, Tensor]:
    """A cache of some of the classes, in any order, with validation features and a classifier."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(1 if single else CLASSES - 1, (count,), generator=draw)
    cache = KeyCache(labels, CLASSES, 6, 1.0, 1.0).requires_grad_(False)
    rows = functional.normalize(torch.randn(count + 300 + CLASSES, 6, generator=draw), dim=-1)
    cache.keys.copy_(rows[:count])
    return cache, rows[count:-CLASSES], rows[-CLASSES:] / 20


def oracle(
    cache: KeyCache,
    features: Tensor,
    truth: Tensor,
    classifier: Tensor,
    grid: tuple[list[float], list[float]],
) -> tuple[float, float, int]:
    """Beta, alpha and the number of correct images: strictly better only, beta outside."""
    f, keys, g = features.double(), cache.keys.double(), classifier.double()
    values = functional.one_hot(cache.labels, CLASSES).double()
    best = (0.0, 0.0, -1)
    for beta in grid[0]:
        near = (-beta * (1 - f @ keys.T)).exp() @ values
        for alpha in grid[1]:
            correct = int(((100 * f @ g.T + alpha * near).argmax(1) == truth).sum())
            if correct > best[2]:
                best = (beta, alpha, correct)
    return best


@pytest.mark.parametrize(("count", "single"), [(40, False), (1, False), (9, True)])
def test_the_search_is_the_published_loop(count: int, single: bool) -> None:
    cache, features, classifier = random_cache(count, count, single)
    truth = torch.arange(len(features)) % CLASSES
    scale, steps = (9.0, 4.0), (12, 5)
    grid = ([0.1 + i * 8.9 / 12 for i in range(12)], [0.1 + i * 3.9 / 5 for i in range(5)])
    for axis in (0, 1):
        assert grid_values(scale[axis], steps[axis]) == pytest.approx(grid[axis], rel=1e-14)
    beta, alpha, correct = oracle(cache, features, truth, classifier, grid)
    found = search(cache, features, truth, classifier, scale, steps)
    assert (found["beta"], found["alpha"]) == pytest.approx((beta, alpha), rel=1e-14)
    assert found["val_accuracy"] == pytest.approx(100 * correct / len(truth))
    assert (float(cache.beta), float(cache.alpha)) == pytest.approx((beta, alpha), rel=1e-6)


def test_of_equal_points_the_first_is_chosen() -> None:
    """Images of a class on its key, which every alpha and beta classifies correctly."""
    cache, features, classifier = random_cache(1, 0)
    truth = cache.labels.expand(4)
    features = cache.keys.expand(4, -1)
    found = search(cache, features, truth, 0 * classifier, (2.0, 3.0), (4, 3))
    assert (found["beta"], found["alpha"], found["val_accuracy"]) == (0.1, 0.1, 100.0)


def test_a_checkpoint_brings_its_own_number_of_keys() -> None:
    trained, features, classifier = random_cache(40, 1)
    cache = KeyCache(torch.zeros(0, dtype=torch.long), CLASSES, 6, 3.0, 2.0)
    parameter = cache.keys
    cache.load_state_dict(trained.state_dict())
    assert cache.keys is parameter and len(parameter) == 40
    torch.testing.assert_close(cache(features, classifier), trained(features, classifier))
