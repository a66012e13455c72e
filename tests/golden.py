"""The golden cases: what the methods' reference implementations compute on tiny models.

The folder is read from the environment variable NEMESIS_GOLDEN_DIR (default tests/data/golden), so
that a larger set of the same kinds can be run by the same tests.
"""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip.model import CLIP
from clip.weights import load_clip

FOLDER = Path(os.environ.get("NEMESIS_GOLDEN_DIR", Path(__file__).parent / "data" / "golden"))
TOLERANCE = 2e-5
TEXT_HEADS = 2  # the golden models' width of 32 would give width // 64 = 0 heads


@cache
def index() -> dict[str, Any]:
    """The contents of cases.json."""
    return json.loads((FOLDER / "cases.json").read_text())


def cases(kind: str) -> list[Any]:
    """All cases of a kind, for pytest.mark.parametrize; the test is named after the case."""
    import pytest

    found = [case for case in index()["cases"] if case["kind"] == kind]
    return [pytest.param(case, id=case["name"]) for case in found]


@cache
def arrays(file: str) -> dict[str, Tensor]:
    """The arrays of one file as tensors."""
    with np.load(FOLDER / file, allow_pickle=False) as data:
        return {key: torch.from_numpy(data[key]) for key in data.files}


def tiny_clip(arch: str) -> CLIP:
    """A fresh tiny model, `vit` or `rn`, frozen."""
    path = FOLDER / f"tiny_{arch}.safetensors"
    model = load_clip(str(path), device=torch.device("cpu"), transformer_heads=TEXT_HEADS).model
    return model.requires_grad_(False)


def images(arch: str, batch: int = 0) -> Tensor:
    """Batch 0, 1 or 2 of the input images."""
    return arrays("inputs.npz")[f"images_{arch}"][batch]


def labels(batch: int = 0) -> Tensor:
    """The labels of a batch."""
    return arrays("inputs.npz")["labels"][batch]


def assert_golden(actual: Tensor, expected: Tensor) -> None:
    """Equal within the golden tolerance."""
    torch.testing.assert_close(
        actual.detach().float(), expected.float(), atol=TOLERANCE, rtol=TOLERANCE
    )


def assert_same_clip(actual: CLIP, expected: CLIP, arch: str = "vit") -> None:
    """Equal weights bit by bit, and equal outputs up to how a convolution adds up."""
    weights = expected.state_dict()
    assert set(actual.state_dict()) == set(weights)
    assert all(torch.equal(value, weights[key]) for key, value in actual.state_dict().items())
    tokens = arrays(f"clip_base_{arch}.npz")["tokens"]
    with torch.no_grad():
        outputs = [model(images(arch), tokens)[0] for model in (actual, expected)]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
