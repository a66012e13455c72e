"""Folders and CSV files of a user's own images, and the dataset that is loaded from them."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import datasets  # noqa: F401  (registers)
from dassl.config import load_config
from dassl.data.datasets import Datum, build_dataset
from safeio.errors import UserError
from tests.helpers.runs import ROOT

CONFIG = str(ROOT / "configs/datasets/folder.yaml")
PETS = ("cat", "dog", "owl")


def paint(path: Path, shade: int = 0) -> Path:
    """Write a picture of one shade."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), shade % 256, np.uint8)).save(path)
    return path


def fill(folder: Path, classes: Sequence[str] = PETS, count: int = 10) -> Path:
    """Write class folders of small pictures."""
    for name in classes:
        for number in range(count):
            paint(folder / name / f"{number:02d}.png", number)
    return folder


def fill_parts(folder: Path, *parts: str, count: int = 2) -> Path:
    """Write class folders into the folder of each part."""
    for part in parts:
        fill(folder / part, count=count)
    return folder


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def load(path: object, *opts: Any, root: object = "/nowhere") -> dict[str, list[Datum]]:
    """The dataset's parts; an absolute path needs no data root."""
    fixed: list[Any] = ["DATASET.ROOT", str(root), "DATASET.FOLDER.PATH", str(path), "SEED", 1]
    dataset = build_dataset(load_config(CONFIG, opts=[*fixed, *opts]))
    return {"train": dataset.train_x, "val": dataset.val, "test": dataset.test}


def sizes(parts: dict[str, list[Datum]]) -> list[int]:
    return [len(parts[part]) for part in ("train", "val", "test")]


def names(items: Sequence[Datum]) -> dict[int, str]:
    """Label -> class name."""
    return {item.label: item.classname for item in items}


def message(path: object, *opts: Any, root: object = "/nowhere") -> str:
    """The error with which loading is refused."""
    with pytest.raises(UserError) as caught:
        load(path, *opts, root=root)
    assert "\n" not in str(caught.value)
    return str(caught.value)
