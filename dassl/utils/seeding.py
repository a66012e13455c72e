"""Python's, NumPy's and PyTorch's random generators."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def set_random_seed(seed: int) -> None:
    """Seed Python, NumPy and PyTorch on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def generator_states() -> tuple[Any, ...]:
    """Return the states of the global generators, for this process."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def set_generator_states(states: tuple[Any, ...]) -> None:
    """Put back what `generator_states` returned."""
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    if states[3] is not None:
        torch.cuda.set_rng_state_all(states[3])


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Run a block with freshly seeded CPU generators and put the old states back afterwards.

    What the block draws depends on `seed` alone, and nothing outside notices that it drew.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state(), None
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        set_generator_states(states)
