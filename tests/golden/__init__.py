"""The golden cases, and the bundled ones' tiny models and inputs for all other tests."""

from torch import Tensor

from clip.model import CLIP
from tests.golden.cases import BUNDLED, assert_close, read_arrays

FOLDER = BUNDLED.path


def arrays(file: str) -> dict[str, Tensor]:
    """The arrays of one bundled file as tensors."""
    return read_arrays(FOLDER / file)


def tiny_clip(arch: str) -> CLIP:
    """A fresh tiny model, `vit` or `rn`, frozen."""
    return BUNDLED.clip(arch)


def images(arch: str, batch: int = 0) -> Tensor:
    """Batch 0, 1 or 2 of the input images."""
    return BUNDLED.images(arch, batch)


def labels(batch: int = 0) -> Tensor:
    """The labels of a batch."""
    return BUNDLED.labels(batch)


def assert_same_clip(actual: CLIP, expected: CLIP, arch: str = "vit") -> None:
    """Bit-identical weights, and outputs equal up to rounding."""
    weights = expected.state_dict()
    assert set(actual.state_dict()) == set(weights)
    for key, value in actual.state_dict().items():
        assert value.equal(weights[key])
    tokens = arrays(f"clip_base_{arch}.npz")["tokens"]
    ours, theirs = (model(images(arch), tokens)[0] for model in (actual, expected))
    assert_close(ours, theirs, tolerance=1e-5)
