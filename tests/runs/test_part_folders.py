"""Own images in common folder layouts: any spelling, one level deeper, numbers."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from dassl.config import load_config
from dassl.data import DataManager
from datasets.part_folders import part_of
from safeio.errors import UserError
from tests.helpers.own_images import (
    CONFIG,
    PETS,
    fill,
    fill_parts,
    load,
    message,
    names,
    paint,
    sizes,
    write_csv,
)
from tests.helpers.runs import Capture

CLASSES = dict(enumerate(PETS))
SPELLINGS = {
    "train": "train Train TRAIN training Training train_set trainset train-images train2017",
    "val": "val Val VAL valid Validation val_set validation_data seg_val val2017",
    "test": "test Test TEST testing Testing test_set test_images test-data seg_test test2017",
    None: "cat dog trains steam_train test_tube valley contest latest eval dev pretrain train_val "
    "trainval 0 10 images protest",
}


@pytest.mark.parametrize("part", SPELLINGS)
def test_every_spelling_of_a_part(part: str | None) -> None:
    for name in SPELLINGS[part].split():
        assert part_of(name) == part, name
    for name in ("shoe training", "7" * 200):
        assert part_of(name) is None


@pytest.mark.parametrize(
    "parts",
    [
        ("Train", "Val", "Test"),
        ("TRAIN", "VALID", "TEST"),
        ("training", "validation", "testing"),
        ("train_set", "valid", "test_images"),
        ("seg_train", "seg_val", "seg_test"),
        ("trn", "val", "tst"),
    ],
)
def test_parts_never_become_classes(parts: Sequence[str], tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    for count, part in enumerate(parts, 1):
        fill(folder / part, count=count)
    loaded = load(folder)
    assert sizes(loaded) == [3, 6, 9]
    assert names(loaded["train"]) == names(loaded["test"]) == CLASSES
    assert not (folder / "split_Folder.json").exists()


@pytest.mark.parametrize("above", ["pets", "archive/pets", "images", "a/b/c/d"])
@pytest.mark.parametrize("parts", [("",), ("train", "test"), ("Train", "Val", "TEST")])
def test_wrapping_folders_are_entered(
    above: str, parts: Sequence[str], tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "download"
    fill_parts(folder / above, *parts, count=4)
    for name in ("__MACOSX/pets/train/._x.png", ".git/x.png"):
        paint(folder / name)
    (folder / "annotations").mkdir()
    for _ in range(2):  # also from the split that the first load saves
        loaded = load(folder)
        assert names(loaded["train"]) == names(loaded["test"]) == CLASSES
        assert f"All images of {folder} are in {folder / above}" in capsys.readouterr().out
    assert (folder / "split_Folder.json").exists() == (parts == ("",))


def test_parts_with_a_wrapping_folder_inside(tmp_path: Path) -> None:
    """seg_train/seg_train/<class>, as a well-known download has it, with pictures to predict."""
    folder = tmp_path / "intel"
    for part in ("seg_train", "seg_test"):
        fill(folder / part / part, count=2)
    paint(folder / "seg_pred" / "seg_pred" / "1.png")
    loaded = load(folder)
    assert sizes(loaded) == [6, 0, 6] and names(loaded["test"]) == CLASSES


def test_a_part_of_a_single_class_is_not_entered(tmp_path: Path) -> None:
    folder = fill_parts(tmp_path / "pets", "train")
    for year in ("2020", "2021"):
        paint(folder / "test" / "cat" / year / "a.png")
    assert sizes(load(folder)) == [6, 0, 2]


def test_class_names_lie_next_to_the_class_folders_or_above(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    fill(folder / "images", count=4)
    lines = "cat tabby\ndog poodle\nowl barn owl\n"
    (folder / "classnames.txt").write_text(lines, encoding="utf-8-sig", newline="\r\n")
    named = {0: "tabby", 1: "poodle", 2: "barn owl"}
    assert names(load(folder)["test"]) == named
    (folder / "classnames.txt").rename(folder / "images" / "classnames.txt")
    assert names(load(folder)["test"]) == named


# Refused layouts

PARTS = "train/a train/b test/a"
NEXT_TO = "contains {}, a folder of images, next to the parts train, test"
UNKNOWN = "{} is named like a part and contains folders"
LAYOUTS = {  # the class folders -> what is wrong with them
    "train/a train/b val/a Validation/a test/a": "Validation and val, both of which are val",
    f"{PARTS} emu": NEXT_TO.format("emu"),
    f"{PARTS} emu/2021": NEXT_TO.format("emu"),
    f"{PARTS} domain_2/cat": NEXT_TO.format("domain_2"),
    **{f"{PARTS} {n}/cat": NEXT_TO.format(n) for n in ("dev", "eval", "trainval")},
    "train/steam train/electric bus": "next to the parts train",
    "cat/Train cat/test dog/Train dog/test": "cat contains the parts Train, test",
    **{
        f"{name}/a {name}/b other/a other/b": UNKNOWN.format(name)
        for name in ("cub_train", "TrainImagesOfBirds", "eval", "dev_set")
    },
    "train test": "needs train and test",
    "cat": 'has a single class, "cat"',
    "train/cat test/cat": 'has a single class, "cat"',
    "1 01 2": 'The classes "01" and "1" are the same number',
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_that_are_refused(layout: str, tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets", layout.split(), count=4)
    assert LAYOUTS[layout] in message(folder)
    assert not list(folder.rglob("split_*"))


def test_folders_of_domains_become_the_classes_with_a_note(tmp_path: Path, capsys: Capture) -> None:
    folder = fill_parts(tmp_path / "pets", "photo", "sketch", count=4)
    assert names(load(folder)["test"]) == {0: "photo", 1: "sketch"}
    assert "the classes are photo, sketch, folders of" in capsys.readouterr().out


def test_classes_without_test_images_are_named(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "pets"
    fill(folder / "Train", count=2)
    fill(folder / "Test", ("cat", "dog"), count=2)
    load(folder)
    assert "has no test images of 1 of its 3 classes: ['owl']" in capsys.readouterr().out


# One class


def test_a_split_or_list_of_a_single_class_is_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets", ("cat", "dog"))
    rows = [["path", "label"], *([f"cat/{n:02d}.png", "cat"] for n in range(10))]
    table = write_csv(folder / "pets.csv", rows)
    assert 'has a single class, "cat"' in message(table)
    assert not list(folder.glob("split_*"))
    load(folder)
    split = folder / "split_Folder.json"
    split.write_text(split.read_text().replace('1,"dog"', '0,"cat"'))
    error = message(folder)
    assert 'single class, "cat"' in error and f"delete {split} to split" in error


def test_half_of_two_classes_is_refused(tmp_path: Path) -> None:
    """Base and new classes of a dataset with two are one each."""
    folder = fill(tmp_path / "pets", ("cat", "dog"))
    path = ("DATASET.ROOT", "/nowhere", "DATASET.FOLDER.PATH", str(folder))
    for half, name in (("base", "cat"), ("new", "dog")):
        cfg = load_config(CONFIG, opts=[*path, "DATASET.SUBSAMPLE_CLASSES", half])
        with pytest.raises(UserError, match=f'Folder has a single class, "{name}"'):
            DataManager(cfg)


# Numbers as class names


def test_numbers_are_in_numerical_order(tmp_path: Path, capsys: Capture) -> None:
    folder = fill(tmp_path / "digits", ("0", "1", "2", "10"), count=4)
    assert names(load(folder)["test"]) == {0: "0", 1: "1", 2: "2", 3: "10"}
    printed = capsys.readouterr().out
    assert 'prompts read "a photo of a 0."' in printed and str(folder / "classnames.txt") in printed
    assert "delete split_Folder.json, which contains the numbers" in printed
    # An earlier split keeps its labels.
    split = folder / "split_Folder.json"
    text = split.read_text()
    for old, new in (('2,"2"', '9,"2"'), ('3,"10"', '2,"10"'), ('9,"2"', '3,"2"')):
        text = text.replace(old, new)
    split.write_text(text)
    assert names(load(folder)["test"]) == {0: "0", 1: "1", 2: "10", 3: "2"}
    assert "although" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("labels", "ordered"),
    [
        (("10", "9", "2"), ["2", "9", "10"]),
        (("3.0", "10.0", "2.0"), ["2.0", "3.0", "10.0"]),
        (("02", "10", "1"), ["1", "02", "10"]),
        (("-1", "1", "0"), ["-1", "0", "1"]),
        (("10", "9", "two"), ["10", "9", "two"]),
    ],
)
def test_numbers_in_a_csv(
    labels: Sequence[str], ordered: Sequence[str], tmp_path: Path, capsys: Capture
) -> None:
    folder = fill(tmp_path / "pictures", [f"f{n}" for n in range(3)], count=4)
    rows = [[f"f{n}/{i:02d}.png", label] for n, label in enumerate(labels) for i in range(4)]
    table = write_csv(folder / "table.csv", [["path", "label"], *rows, ["", ""], []])
    found = names(load(table)["test"])
    assert [found[n] for n in range(3)] == ordered
    assert ("classnames.txt" in capsys.readouterr().out) == ("two" not in labels)
    # classnames.txt next to it, as next to class folders; the saved split contains the numbers.
    (folder / "split_table.json").unlink()
    lines = "".join(f"{label} kind {n}\r\n" for n, label in enumerate(labels))
    (folder / "classnames.txt").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    kinds = {label: f"kind {n}" for n, label in enumerate(labels)}
    found = names(load(table)["test"])
    assert [found[n] for n in range(3)] == [kinds[label] for label in ordered]
    assert "prompts read" not in capsys.readouterr().out
