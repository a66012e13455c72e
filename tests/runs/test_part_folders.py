"""Own images in the folders in which people have them: parts in any spelling, one level deeper."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from dassl.config import load_config
from dassl.data import DataManager
from datasets.part_folders import part_of
from safeio.errors import UserError
from tests.helpers.runs import command, finish, results
from tests.runs.test_folder import (
    CONFIG,
    fill,
    load,
    message,
    names,
    paint,
    sizes,
    write_csv,
)

CLASSES = {0: "cat", 1: "dog", 2: "owl"}
SPELLINGS = {
    "train": "train Train TRAIN training Training train_set trainset train-images train2017",
    "val": "val Val VAL valid Validation val_set validation_data seg_val val2017",
    "test": "test Test TEST testing Testing test_set test_images test-data seg_test test2017",
}


@pytest.mark.parametrize(
    ("name", "part"), [(name, part) for part, all_ in SPELLINGS.items() for name in all_.split()]
)
def test_every_spelling_of_a_part(name: str, part: str) -> None:
    assert part_of(name) == part


@pytest.mark.parametrize(
    "name",
    (
        *(
            "cat",
            "dog",
            "trains",
            "steam_train",
            "test_tube",
            "valley",
            "contest",
            "latest",
            "eval",
        ),
        *(
            "dev",
            "pretrain",
            "train_val",
            "trainval",
            "0",
            "10",
            "images",
            "protest",
            "shoe training",
        ),
    ),
)
def test_what_is_no_part(name: str) -> None:
    assert part_of(name) is None
    assert part_of("7" * 200) is None


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
    above: str, parts: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "download"
    for part in parts:
        fill(folder / above / part, count=4)
    for beside in ("__MACOSX/pets/train/._x.png", ".git/x.png", "annotations/cat.xml"):
        paint(folder / beside) if beside.endswith("png") else (folder / "annotations").mkdir()
    for _ in range(2):  # also from the split that the first run keeps
        loaded = load(folder)
        assert names(loaded["train"]) == names(loaded["test"]) == CLASSES
        said = capsys.readouterr().out
        assert f"All images of {folder} are in {folder / above}" in said
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
    folder = tmp_path / "pets"
    fill(folder / "train", count=2)
    for year in ("2020", "2021"):
        paint(folder / "test" / "cat" / year / "a.png")
    assert sizes(load(folder)) == [6, 0, 2]


def test_names_of_classes_lie_beside_them_or_above(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    fill(folder / "images", count=4)
    lines = "cat tabby\ndog poodle\nowl barn owl\n"
    (folder / "classnames.txt").write_text(lines, encoding="utf-8-sig", newline="\r\n")
    named = {0: "tabby", 1: "poodle", 2: "barn owl"}
    assert names(load(folder)["test"]) == named
    (folder / "classnames.txt").rename(folder / "images" / "classnames.txt")
    assert names(load(folder)["test"]) == named


def refused(folder: Path, *words: str) -> None:
    said = message(folder)
    assert all(word in said for word in words), said
    assert "\n" not in said
    assert not list(folder.rglob("split_*"))


def test_two_folders_of_one_part(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    for part in ("train", "val", "Validation", "test"):
        fill(folder / part, count=1)
    refused(folder, "Validation and val, both of which are val")


@pytest.mark.parametrize("beside", ["emu", "dev", "eval", "trainval", "domain_2/cat", "emu/2021"])
def test_classes_or_unclear_parts_beside_parts(beside: str, tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    for part in ("Train", "test"):
        fill(folder / part, count=1)
    name = beside.partition("/")[0]
    if beside in ("dev", "eval", "trainval"):
        beside = f"{beside}/cat"
    paint(folder / beside / "a.png")
    refused(folder, f"contains {name}, a folder of images, next to the parts Train, test")


def test_a_train_of_folders_beside_a_class(tmp_path: Path) -> None:
    folder = tmp_path / "vehicles"
    fill(folder / "train", ("steam", "electric"))
    fill(folder, ("bus",))
    refused(folder, "bus", "next to the parts train")


def test_parts_inside_of_classes(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    for name in CLASSES.values():
        fill(folder / name, ("Train", "test"), count=4)
    refused(folder, "cat contains the parts Train, test", "train/cat")


@pytest.mark.parametrize("name", ["cub_train", "TrainImagesOfBirds", "eval", "dev_set"])
def test_unknown_spellings_of_parts(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    for part in (name, "other"):
        fill(folder / part, count=4)
    refused(folder, f"{name} is named like a part and contains folders")


def test_flat_parts(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets", ("train", "test"))
    refused(folder, "needs train and test", "one folder of images a class")


def test_domains_are_said_to_be_the_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pets"
    for domain in ("photo", "sketch"):
        fill(folder / domain, count=4)
    assert names(load(folder)["test"]) == {0: "photo", 1: "sketch"}
    assert "the classes are photo, sketch, folders of" in capsys.readouterr().out


def test_test_classes_that_training_lacks_and_the_reverse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pets"
    fill(folder / "Train", count=2)
    fill(folder / "Test", ("cat", "dog"), count=2)
    load(folder)
    assert "has no test images of 1 of its 3 classes: ['owl']" in capsys.readouterr().out
    paint(folder / "Test" / "emu" / "a.png")
    assert 'the class "emu" of test is not in train' in message(folder)


# One class


def test_one_class_is_no_task(tmp_path: Path) -> None:
    fill(tmp_path / "pets", ("cat",))
    refused(tmp_path / "pets", 'has a single class, "cat"')
    fill(tmp_path / "parts" / "train", ("cat",))
    fill(tmp_path / "parts" / "test", ("cat",))
    refused(tmp_path / "parts", 'has a single class, "cat"')
    rows = [["path", "label"], *([f"cat/{n:02d}.png", "cat"] for n in range(10))]
    table = write_csv(tmp_path / "pets" / "pets.csv", rows)
    assert 'has a single class, "cat"' in message(table)
    assert not list((tmp_path / "pets").glob("split_*"))


def test_the_split_of_an_earlier_mistake(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets", ("cat", "dog"))
    load(folder)
    split = folder / "split_Folder.json"
    split.write_text(split.read_text().replace('1,"dog"', '0,"cat"'))
    said = message(folder)
    assert 'single class, "cat"' in said and f"delete {split} to split" in said


# Numbers as class names


def test_numbers_are_in_their_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fill(tmp_path / "digits", ("0", "1", "2", "10"), count=4)
    ordered = {0: "0", 1: "1", 2: "2", 3: "10"}
    assert names(load(folder)["test"]) == ordered
    said = capsys.readouterr().out
    assert 'prompts read "a photo of a 0."' in said and str(folder / "classnames.txt") in said
    assert "delete split_Folder.json, which contains the numbers" in said
    # A split of before keeps the labels that it has.
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
    labels: Sequence[str],
    ordered: Sequence[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = fill(tmp_path / "pictures", [f"f{n}" for n in range(3)], count=4)
    rows = [[f"f{n}/{i:02d}.png", label] for n, label in enumerate(labels) for i in range(4)]
    table = write_csv(folder / "table.csv", [["path", "label"], *rows, ["", ""], []])
    loaded = load(table)
    assert list(names(sorted(loaded["test"], key=lambda item: item.label)).values()) == ordered
    warned = "classnames.txt" in capsys.readouterr().out
    assert warned == ("two" not in labels)
    # Names beside it, as beside class folders; the split that was made has the numbers.
    (folder / "split_table.json").unlink()
    lines = "".join(f"{label} kind {n}\r\n" for n, label in enumerate(labels))
    (folder / "classnames.txt").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    kinds = {label: f"kind {n}" for n, label in enumerate(labels)}
    found = names(load(table)["test"])
    assert [found[n] for n in range(3)] == [kinds[label] for label in ordered]
    assert "prompts read" not in capsys.readouterr().out


def test_one_number_in_two_spellings(tmp_path: Path) -> None:
    folder = fill(tmp_path / "digits", ("1", "01", "2"), count=4)
    refused(folder, 'The classes "01" and "1" are the same number')


def test_the_column_split_of_a_csv(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures", count=3)
    parts = ("Train", "validation", "TEST")
    rows = [[f"{c}/{n:02d}.png", c, parts[n]] for c in CLASSES.values() for n in range(3)]
    table = write_csv(folder / "t.csv", [["path", "label", "split"], *rows])
    assert sizes(load(table)) == [3, 3, 3]


# Whole runs


def test_a_run_on_a_download(tmp_path: Path) -> None:
    for part in ("Train", "Test"):
        fill(tmp_path / "data" / "download" / "pets" / part, count=2)
    arguments = command(
        tmp_path / "run",
        tmp_path / "data",
        "DATASET.FOLDER.PATH",
        "download",
        trainer="ZeroshotCLIP",
    )
    arguments[arguments.index("--dataset-config-file") + 1] = CONFIG
    finish(arguments)
    found = results(tmp_path / "run")
    assert (found["num_test"], found["split_check"]) == (6, {})


def test_the_half_of_two_classes(tmp_path: Path) -> None:
    """Base and new classes of a dataset with two are one each."""
    folder = fill(tmp_path / "pets", ("cat", "dog"))
    path = ("DATASET.ROOT", "/nowhere", "DATASET.FOLDER.PATH", str(folder))
    for half, name in (("base", "cat"), ("new", "dog")):
        cfg = load_config(CONFIG, opts=[*path, "DATASET.SUBSAMPLE_CLASSES", half])
        with pytest.raises(UserError, match=f'Folder has a single class, "{name}"'):
            DataManager(cfg)
