"""The public datasets, in their on-disk layout with CoOp's split file, a few images each."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import datasets  # noqa: F401  (registers)
from dassl.config import load_config
from dassl.data.datasets import DATASET_REGISTRY, SplitDataset, build_dataset
from dassl.utils import UserError

WITH_SPLIT_FILE = sorted(
    name
    for name in DATASET_REGISTRY.registered_names()
    if getattr(DATASET_REGISTRY.get(name), "split_file", "").startswith("split_zhou_")
)
CLASSES = ("abyssinian", "american_bulldog", "beagle")


def _miniature(root: Path, dataset: type[SplitDataset]) -> None:
    """Six images a class, split 3 / 1 / 2, as CoOp's split files list them."""
    folder = root / dataset.dataset_dir
    split: dict[str, list[tuple[str, int, str]]] = {"train": [], "val": [], "test": []}
    for label, name in enumerate(CLASSES):
        for number, part in enumerate(["train"] * 3 + ["val"] + ["test"] * 2):
            relative = f"{name}/{name}_{number}.jpg"
            path = folder / dataset.image_dir / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), number * 20, np.uint8)).save(path)
            split[part].append((relative, label, name))
    (folder / dataset.split_file).write_text(json.dumps(split))


def test_nine_datasets_have_coops_split_files() -> None:
    assert len(WITH_SPLIT_FILE) == 9


@pytest.mark.parametrize("name", WITH_SPLIT_FILE)
def test_reads_coops_split(name: str, tmp_path: Path) -> None:
    _miniature(tmp_path, DATASET_REGISTRY.get(name))
    opts = ["DATASET.NAME", name, "DATASET.ROOT", str(tmp_path), "SEED", "1"]
    dataset = build_dataset(load_config(opts=[*opts, "DATASET.NUM_SHOTS", "2"]))
    assert dataset.classnames == list(CLASSES)
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == (6, 3, 6)
    assert all(Path(item.impath).is_file() for item in dataset.train_x)
    base = build_dataset(load_config(opts=[*opts, "DATASET.SUBSAMPLE_CLASSES", "base"]))
    assert base.classnames == list(CLASSES[:2])


def test_imagenet_lists_its_folders(tmp_path: Path) -> None:
    folder = tmp_path / "imagenet"
    for part, count in (("train", 3), ("val", 2)):
        for wnid in ("n01443537", "n01440764"):
            for number in range(count):
                path = folder / "images" / part / wnid / f"{number}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    opts = ["DATASET.NAME", "ImageNet", "DATASET.ROOT", str(tmp_path), "SEED", "1"]
    with pytest.raises(UserError, match=r"classnames\.txt"):
        build_dataset(load_config(opts=opts))
    (folder / "classnames.txt").write_text("n01443537 goldfish\nn01440764 tench\n")
    dataset = build_dataset(load_config(opts=[*opts, "DATASET.NUM_SHOTS", "2"]))
    assert dataset.classnames == ["tench", "goldfish"]
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == (4, 0, 4)


@pytest.mark.parametrize("name", WITH_SPLIT_FILE)
def test_missing_data_is_one_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path)):
        build_dataset(load_config(opts=["DATASET.NAME", name, "DATASET.ROOT", str(tmp_path)]))
