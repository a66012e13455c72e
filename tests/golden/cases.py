"""The golden cases: results of the methods' reference implementations on tiny models.

They are read from the folders in the environment variable NEMESIS_GOLDEN_DIR (separated by
os.pathsep), by default from the folders of tests/data with a cases.json. Models and inputs are
those of the case's folder, else the bundled ones.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip.model import CLIP
from clip.weights import load_clip

DATA = Path(__file__).parent.parent / "data"
TOLERANCE = 2e-5
VIT3 = "vit3"  # the architecture of the cases with prompts in both encoders
TEXT_HEADS = 2  # the golden models' width of 32 would give width // 64 = 0 heads


@cache
def read_arrays(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as data:
        return {key: torch.from_numpy(data[key]) for key in data.files}


@dataclass(frozen=True)
class GoldenFolder:
    """A folder with cases.json and its files."""

    path: Path

    def file(self, name: str) -> Path:
        """A model or the inputs: the folder's, else a bundled one."""
        own = self.path / name
        return own if own.is_file() else next(DATA.glob(f"golden*/{name}"))

    def weights(self, arch: str) -> Path:
        return self.file(f"tiny_{arch}.safetensors")

    def clip(self, arch: str) -> CLIP:
        """A fresh tiny model, `vit` or `rn`, frozen."""
        path, device = str(self.weights(arch)), torch.device("cpu")
        model = load_clip(path, device=device, transformer_heads=TEXT_HEADS).model
        return model.requires_grad_(False)

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The images, labels and prompts that the cases have in common."""
        return read_arrays(self.file("inputs.npz"))

    def images(self, arch: str, batch: int = 0) -> Tensor:
        """Batch 0, 1 or 2 of the input images."""
        if arch == VIT3:
            return self.tower_inputs["images"][batch]
        return self.inputs[f"images_{arch}"][batch]

    def labels(self, batch: int = 0, class_set: str = "") -> Tensor:
        """The labels of a batch, for one of the class sets or for the classes of cases.json."""
        if class_set:
            return self.tower_inputs[f"labels_{class_set}"][batch]
        return self.inputs["labels"][batch]

    @property
    def tower_inputs(self) -> dict[str, Tensor]:
        """The images and labels of the cases with prompts in both encoders."""
        return read_arrays(self.file("inputs_vit3.npz"))

    @property
    def index(self) -> dict[str, Any]:
        return json.loads((self.path / "cases.json").read_text(encoding="utf-8"))

    def cases(self) -> "Iterator[Case]":
        """Every case, once for each architecture that it names."""
        index = self.index
        for entry in index["cases"]:
            for arch in ("vit", "rn") if entry["arch"] == "both" else (entry["arch"],):
                yield Case(self, entry, arch, entry["params"].get("classes", index["classes"]))


@dataclass(frozen=True)
class Case:
    """A result of a reference implementation, with its model and settings."""

    folder: GoldenFolder
    entry: dict[str, Any]
    arch: str
    classes: list[str]

    @property
    def kind(self) -> str:
        """What was computed, such as `coop`."""
        return self.entry["kind"]

    @property
    def params(self) -> dict[str, Any]:
        return self.entry["params"]

    @property
    def expected(self) -> dict[str, Tensor]:
        return read_arrays(self.folder.path / self.entry["file"])

    def clip(self) -> CLIP:
        return self.folder.clip(self.arch)

    def images(self, batch: int = 0) -> Tensor:
        return self.folder.images(self.arch, batch)

    def labels(self, batch: int = 0) -> Tensor:
        return self.folder.labels(batch, self.params.get("class_set", ""))


BUNDLED = GoldenFolder(DATA / "golden")


def golden_folders() -> list[GoldenFolder]:
    """The folders whose cases are run."""
    named = [part for part in os.environ.get("NEMESIS_GOLDEN_DIR", "").split(os.pathsep) if part]
    bundled = sorted(index.parent for index in DATA.glob("*/cases.json"))
    return [GoldenFolder(Path(part)) for part in named or bundled]


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    """Equal within the golden tolerance, absolute and relative, as fp32."""
    torch.testing.assert_close(
        actual.detach().float(), expected.float(), atol=tolerance, rtol=tolerance
    )
