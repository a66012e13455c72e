"""Save, restore and seed the states of all random generators."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from safeio.errors import UserError
from safeio.untrusted import one_line


def generator_states(accelerators: bool = True) -> dict[str, Any]:
    """Return the states of Python's, NumPy's and PyTorch's generators, perhaps without GPUs."""
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=True),
        "torch": torch.get_rng_state(),
    }
    if accelerators and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    if accelerators and torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_generator_states(states: Mapping[str, Any]) -> None:
    """Restore `generator_states` or `random_states`; states of unused devices are ignored."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if states.get("cuda") and torch.cuda.is_initialized():  # a run on a CPU leaves CUDA alone
        for index, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, index)
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])


def random_states() -> dict[str, Any]:
    """Return `generator_states` as tensors and plain values for a checkpoint."""
    states = generator_states()
    version, numbers, gauss = states["python"]
    name, keys, position, has_gauss, cached = states["numpy"]
    return {
        **states,
        "python": [version, list(numbers), gauss],
        "numpy": [str(name), [int(k) for k in keys], int(position), int(has_gauss), float(cached)],
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Restore the `random_states` of a checkpoint.

    Raises:
        UserError: they are not valid.
    """
    try:
        set_generator_states(states)
    except Exception as error:  # an untrusted checkpoint can hold anything under this name
        raise UserError(
            f"The random states in the checkpoint are not valid: {one_line(error)}"
        ) from error


def set_random_seed(seed: int) -> None:
    """Seed Python, NumPy and PyTorch on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Seed the CPU generators for a block and restore their states afterwards."""
    states = generator_states(accelerators=False)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        set_generator_states(states)
