"""The user's own images: layouts, names, splits that stay, and what is refused."""

import csv
import json
import os
import shutil
import unicodedata
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
from tests.helpers.runs import ROOT, command, finish, refuse, results

CONFIG = str(ROOT / "configs/datasets/folder.yaml")


def paint(path: Path, shade: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), shade % 256, np.uint8)).save(path)
    return path


def fill(folder: Path, classes: Sequence[str] = ("cat", "dog", "owl"), count: int = 10) -> Path:
    """Class folders of small pictures."""
    for name in classes:
        for number in range(count):
            paint(folder / name / f"{number:02d}.png", number)
    return folder


def fill_parts(folder: Path, *parts: str, count: int = 2) -> Path:
    for part in parts:
        fill(folder / part, count=count)
    return folder


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def load(path: object, *opts: Any, root: object = "/nowhere") -> dict[str, list[Datum]]:
    """The dataset's parts; a path that is absolute needs no data root."""
    wins: list[Any] = [
        "DATASET.ROOT",
        str(root),
        "DATASET.FOLDER.PATH",
        str(path),
        "SEED",
        1,
        *opts,
    ]
    dataset = build_dataset(load_config(CONFIG, opts=wins))
    return {"train": dataset.train_x, "val": dataset.val, "test": dataset.test}


def sizes(parts: dict[str, list[Datum]]) -> list[int]:
    return [len(parts[part]) for part in ("train", "val", "test")]


def names(items: Sequence[Datum]) -> dict[int, str]:
    return {item.label: item.classname for item in items}


def message(path: object, *opts: Any, root: object = "/nowhere") -> str:
    with pytest.raises(UserError) as caught:
        load(path, *opts, root=root)
    return str(caught.value)


# Layouts


def test_given_parts(tmp_path: Path) -> None:
    folder = fill_parts(tmp_path / "pets", "train", "val", "test")
    parts = load("pets", root=tmp_path)
    assert sizes(parts) == [6, 6, 6]
    assert names(parts["train"]) == names(parts["test"]) == {0: "cat", 1: "dog", 2: "owl"}
    for part, items in parts.items():
        assert all(Path(item.impath).is_relative_to(folder / part) for item in items)
    # What was given is listed anew in every run.
    paint(folder / "test" / "owl" / "late.png")
    assert sizes(load("pets", root=tmp_path)) == [6, 6, 7]


def test_validation_is_optional_and_a_class_may_miss_there(tmp_path: Path) -> None:
    folder = fill_parts(tmp_path / "pets", "train", "test")
    shutil.rmtree(folder / "test" / "cat")
    parts = load(folder)
    assert sizes(parts) == [6, 0, 4]
    assert names(parts["test"]) == {1: "dog", 2: "owl"}


def test_a_test_is_needed_unless_nothing_is_tested(tmp_path: Path) -> None:
    folder = fill_parts(tmp_path / "pets", "train", "val")
    assert "needs train and test" in message(folder)
    assert sizes(load(folder, "TEST.NO_TEST", True)) == [6, 6, 0]
    assert sizes(load(folder, "TEST.SPLIT", "val")) == [6, 6, 0]


def test_class_folders_are_split_once_for_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fill(tmp_path / "pets")
    first = load(folder)
    assert sizes(first) == [15, 6, 9]
    kept = json.loads((folder / "split_Folder.json").read_text())
    assert kept["train"][0][0].startswith("cat/")
    other = fill(tmp_path / "elsewhere" / "pets")
    assert [i.impath[-10:] for i in load(other)["train"]] == [
        item.impath[-10:] for item in first["train"]
    ]
    # New images do not change it, and that is said.
    capsys.readouterr()
    assert load(folder) == first
    assert "split_Folder" not in capsys.readouterr().out
    for number in range(5):
        paint(folder / "cat" / f"new{number}.png")
    assert load(folder) == first
    assert "5 of the listed images are not in it" in capsys.readouterr().out
    (folder / "split_Folder.json").unlink()
    assert sum(sizes(load(folder))) == 35


def test_few_shot_and_base_classes(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets")
    few = load(folder, "DATASET.NUM_SHOTS", 2)
    assert sizes(few) == [6, 6, 9]
    assert load(folder, "DATASET.NUM_SHOTS", 2) == few
    assert (folder / "split_fewshot" / "shot_2-seed_1.json").is_file()
    new = load(folder, "DATASET.SUBSAMPLE_CLASSES", "new")
    assert names(new["test"]) == {0: "owl"}


def test_a_csv(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures")
    rows = [
        [str(path.relative_to(folder)), path.parent.name] for path in sorted(folder.rglob("*.png"))
    ]
    table = write_csv(folder / "pets.csv", [["path", "label"], *rows])
    first = load(table)
    assert sizes(first) == [15, 6, 9]
    assert load("pictures/pets.csv", root=tmp_path) == first
    assert (folder / "split_pets.json").is_file()
    # Columns in any order, others beside them, a byte order mark; parts as they are given.
    parts = [["id", "split", "label", "path"]]
    parts += [["7", "train" if n % 2 else "test", r[1], r[0]] for n, r in enumerate(rows)]
    write_csv(table, parts)
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    given = load(table)
    assert sizes(given) == [15, 0, 15]
    assert names(given["train"]) == {0: "cat", 1: "dog", 2: "owl"}


def test_images_in_further_folders_and_other_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fill(tmp_path / "pets")
    paint(folder / "cat" / "2021" / "may" / "a.JPG")
    paint(folder / "cat" / ".hidden.png")
    paint(folder / "cat" / ".trash" / "b.png")
    paint(folder / ".cache" / "c.png")
    paint(folder / "loose.png")
    (folder / "cat" / "notes.txt").write_text("x")
    (folder / "__MACOSX").mkdir()
    parts = load(folder)
    assert sum(sizes(parts)) == 31
    assert "Not used in" in (said := capsys.readouterr().out) and ": 2 files" in said


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    folder = fill(tmp_path / "vehicles", ("bus", "train"))
    assert set(names(load(folder)["test"]).values()) == {"bus", "train"}


def test_folders_beside_the_parts_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fill_parts(tmp_path / "pets", "train", "test")
    (folder / "labels").mkdir()
    (folder / "labels" / "cat.xml").touch()
    assert sizes(load(folder)) == [6, 0, 6]
    assert "Not used next to train, test" in (said := capsys.readouterr().out) and "labels" in said


# Names


def test_class_names_from_a_file(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets", ("n02", "n01", "two words"))
    (folder / "classnames.txt").write_text(
        "n02 German shepherd\n\nn01\tbarn  owl \ntwo words\tcat\n", encoding="utf-8"
    )
    # The order is that of the folders, whatever that of the lines.
    assert names(load(folder)["test"]) == {0: "barn  owl", 1: "German shepherd", 2: "cat"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cat Cat\n", 'no line for the class folder "dog"'),
        ("cat Cat\ndog Dog\nowl\n", 'the line "owl"'),
        ("cat Cat\ncat Puss\n", 'the line "cat Puss"'),
        ("bird Bird\n", 'the line "bird Bird"'),
        ("cat pet\ndog pet\nowl bird\n", 'the same name "pet"'),
    ],
)
def test_bad_class_names(text: str, said: str, tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets")
    (folder / "classnames.txt").write_text(text)
    assert said in message(folder)
    (folder / "classnames.txt").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in message(folder)


@pytest.mark.parametrize("twin", ["red panda", "Red_Panda"])
def test_names_that_are_the_same_to_clip(twin: str, tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets", ("red_panda", twin))
    said = message(folder)
    assert "red_panda" in said and twin in said and 'same name "red panda"' in said


def test_names_in_any_script(tmp_path: Path) -> None:
    accented = "chat_siamés"
    folder = tmp_path / "Tiere für mich"
    fill(folder / "train", (unicodedata.normalize("NFC", accented), "ネコ"), 1)
    fill(folder / "test", (unicodedata.normalize("NFD", accented), "ネコ"), 1)
    parts = load(folder, "DATASET.NUM_SHOTS", 1)
    assert names(parts["train"]) == names(parts["test"]) == {0: accented, 1: "ネコ"}
    assert load(folder, "DATASET.NUM_SHOTS", 1) == parts


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on POSIX systems alone")
def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets")
    paint(folder / "cat" / "ok.png").rename(folder / "cat" / os.fsdecode(b"bad\xff.png"))
    assert "not valid UTF-8" in message(folder)


# Links


def test_links_to_images_and_folders(tmp_path: Path) -> None:
    store = fill(tmp_path / "store")
    folder = tmp_path / "pets"
    (folder / "cat").mkdir(parents=True)
    for path in (store / "cat").iterdir():
        (folder / "cat" / path.name).symlink_to(path)
    (folder / "dog").symlink_to(store / "dog", target_is_directory=True)
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    assert sizes(load(tmp_path / "link")) == [10, 4, 6]


def test_links_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets")
    (folder / "cat" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "dog" / "self").symlink_to(folder / "dog", target_is_directory=True)
    (folder / "owl" / "ring").symlink_to(folder / "owl" / "ring")
    parts = load(folder)
    assert len([i for items in parts.values() for i in items if i.classname == "dog"]) == 10


# What is refused


def test_what_is_not_there(tmp_path: Path) -> None:
    assert "DATASET.FOLDER.PATH is empty" in message("")
    assert f"{tmp_path / 'none'} is not a folder" in message("none", root=tmp_path)
    assert f"{tmp_path / 'none.csv'} is not a file" in message(tmp_path / "none.csv")
    fill(tmp_path)
    assert "parent folder" in message(".", root=tmp_path)


def test_a_folder_without_classes(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "has no classes" in message(tmp_path / "empty")
    paint(tmp_path / "flat" / "a.png")
    assert "has no classes" in message(tmp_path / "flat")


def test_an_empty_class(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets")
    (folder / "emu").mkdir()
    (folder / "emu" / "photo.heic").write_text("x")
    assert 'the class "emu" has no images' in message(folder)
    parts = fill_parts(tmp_path / "parts", "train", "test")
    (parts / "train" / "emu").mkdir()
    assert 'the class "emu" has no images' in message(parts)


def test_a_class_that_training_does_not_know(tmp_path: Path) -> None:
    folder = fill_parts(tmp_path / "pets", "train", "test")
    paint(folder / "test" / "emu" / "a.png")
    assert 'the class "emu" of test is not in train' in message(folder)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_images_to_split(count: int, tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets")
    fill(folder, ["emu"], count)
    said = message(folder)
    assert f'The class "emu" has {count} images, too few' in said and "four" in said
    fill(folder, ["emu"], 4)
    assert sum(sizes(load(folder))) == 34


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["a.png", "cat"]], "must name the columns"),
        ([], "must name the columns"),
        ([["path", "label", "path"]], "must name the columns"),
        ([["path", "label", "Label"]], "must name the columns"),
        ([["path", "label"]], "has no classes"),
        ([["path", "label"], ["a.png", "cat", "dog"]], "line 2: there are 3 values for 2 columns"),
        ([["path", "label"], ["", "cat"]], "line 2: the path or the label is empty"),
        ([["path", "label"], ["a.png", " "]], "line 2: the path or the label is empty"),
        ([["path", "label"], ["b.png", "cat"]], "b.png does not exist"),
        ([["path", "label"], ["../a.png", "cat"]], "refused"),
        ([["path", "label"], ["/etc/passwd", "cat"]], "refused"),
        (
            [["path", "label"], ["a.png", "cat"], ["a.png", "cat"]],
            "a.png is listed in line 2 already",
        ),
        ([["path", "label", "split"], ["a.png", "cat", "dev"]], 'the split is "dev"'),
        ([["path", "label", "split"], ["a.png", "cat", "all"]], 'the split is "all"'),
        ([["path", "label", "split"], ["a.png", "cat", "test"]], "needs train and test"),
        (
            [["path", "label", "split"], ["a.png", "cat", "train"], ["c.png", "dog", "test"]],
            'the class "dog" of test is not in train',
        ),
        ([["path", "label"], ["a.png", "cat"], ["c.png", "Cat"]], 'the same name "cat"'),
        ([["path", "label"], ["a.png", "cat"]], "too few"),
    ],
)
def test_a_bad_csv(rows: list[list[str]], said: str, tmp_path: Path) -> None:
    for name in ("a.png", "c.png", "d.png"):
        paint(tmp_path / "pictures" / name)
    assert said in message(write_csv(tmp_path / "pictures" / "pets.csv", rows))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ", ", ";", "\t"])
def test_a_csv_of_a_spreadsheet(separator: str, end: str, tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures", count=2)
    rows = [["Split", "PATH", "Label", ""]]
    for name in ("cat", "dog"):
        rows += [["Train", f"{name}/00.png", f"{name}, big", ""]]
        rows += [["TEST", f"{name}/01.png", f"{name}, big", ""]]
    table = folder / "pets.csv"
    lines = [separator.join(f'"{value}"' for value in row) for row in rows]
    table.write_bytes(b"\xef\xbb\xbf" + end.join(lines).encode())
    loaded = load(table)
    assert sizes(loaded) == [2, 0, 2]
    assert names(loaded["train"]) == {0: "cat, big", 1: "dog, big"}


@pytest.mark.parametrize("column", ["set", "subset", "Partition", "usage"])
def test_the_test_images_of_a_csv_are_never_trained_on(column: str, tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures", count=8)
    rows = [["path", "label", column, "place"]]
    for number in range(8):
        part = "training" if number % 2 else "Testing"
        rows += [[f"{name}/{number:02d}.png", name, part, "zoo"] for name in ("cat", "dog")]
    table = write_csv(folder / "pets.csv", rows)
    assert f'{table}: the column "{column.lower()}" contains the parts' in message(table)
    assert not (folder / "split_pets.json").exists()
    rows[0][2] = "Split"
    assert sizes(load(write_csv(table, rows))) == [8, 0, 8]


def test_a_csv_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "pets.csv"
    for content in (b"path,label\n\xff\xfe,cat\n", b'path,label\n"a.png,cat\n'):
        path.write_bytes(content)
        assert "cannot be read as a CSV" in message(path)


def test_a_run_on_own_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "pets")
    arguments = command(tmp_path / "run", tmp_path, "DATASET.FOLDER.PATH", "pets")
    arguments[arguments.index("--dataset-config-file") + 1] = CONFIG
    arguments[arguments.index("CoOp")] = "ZeroshotCLIP"
    finish(arguments)
    assert (results(tmp_path / "run")["dataset"], results(tmp_path / "run")["num_test"]) == (
        *("Folder",),
        9,
    )
    arguments[-1] = "pest"
    assert "pest is not a folder" in refuse(
        [*arguments[:-2], "--overwrite", *arguments[-2:]], capsys
    )
