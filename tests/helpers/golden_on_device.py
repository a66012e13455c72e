"""Pytest plugin: the golden cases on the device in NEMESIS_GOLDEN_DEVICE instead of on the CPU.

NEMESIS_GOLDEN_DEVICE=cuda python -m pytest -p tests.helpers.golden_on_device tests/golden
"""

import os
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, device


@pytest.hookimpl(trylast=True)  # jaxtyping checks only what is imported afterwards
def pytest_configure(config: pytest.Config) -> None:
    """Replace functions before any test module takes them by name."""
    from tests.golden import cases, harness

    there = device(os.environ.get("NEMESIS_GOLDEN_DEVICE", "cpu"))
    read, close, load = cases.read_arrays, cases.assert_close, harness.load_config
    clip = cases.GoldenFolder.clip

    def read_there(path: Path) -> dict[str, Tensor]:
        return {key: value.to(there) for key, value in read(path).items()}

    def close_here(actual: Tensor, expected: Tensor, *tolerance: float) -> None:
        close(actual.detach().cpu(), expected.cpu(), *tolerance)

    def load_there(*args: Any, opts: Any = (), **kwargs: Any) -> Any:
        return load(*args, **{**kwargs, "opts": [*opts, "DEVICE", str(there)]})

    def clip_there(self: cases.GoldenFolder, arch: str) -> Any:
        return clip(self, arch).to(there)

    patch = pytest.MonkeyPatch()
    patch.setattr(cases, "read_arrays", read_there)
    patch.setattr(cases, "assert_close", close_here)
    patch.setattr(harness, "load_config", load_there)
    patch.setattr(cases.GoldenFolder, "clip", clip_there)
    config.add_cleanup(patch.undo)
