"""The user's own images: layouts, names, splits that stay, CSV files, and what is refused."""

import json
import os
import shutil
import unicodedata
from pathlib import Path

import pytest

from tests.helpers.own_images import fill, fill_parts, load, message, names, paint, sizes, write_csv
from tests.helpers.runs import Capture, command, finish, refuse, results

# Layouts


def test_part_folders_are_listed_again_in_every_run(tmp_path: Path) -> None:
    folder = fill_parts(tmp_path / "pets", "train", "val", "test")
    parts = load("pets", root=tmp_path)
    assert sizes(parts) == [6, 6, 6]
    assert names(parts["train"]) == names(parts["test"]) == {0: "cat", 1: "dog", 2: "owl"}
    for part, items in parts.items():
        assert all(Path(item.impath).is_relative_to(folder / part) for item in items)
    paint(folder / "test" / "owl" / "late.png")
    assert sizes(load("pets", root=tmp_path)) == [6, 6, 7]


def test_validation_is_optional_and_may_lack_a_class(tmp_path: Path) -> None:
    folder = fill_parts(tmp_path / "pets", "train", "test")
    shutil.rmtree(folder / "test" / "cat")
    parts = load(folder)
    assert sizes(parts) == [6, 0, 4]
    assert names(parts["test"]) == {1: "dog", 2: "owl"}


def test_a_test_part_is_needed_unless_nothing_is_tested(tmp_path: Path) -> None:
    folder = fill_parts(tmp_path / "pets", "train", "val")
    assert "needs train and test" in message(folder)
    assert sizes(load(folder, "TEST.NO_TEST", True)) == [6, 6, 0]
    assert sizes(load(folder, "TEST.SPLIT", "val")) == [6, 6, 0]


def test_class_folders_are_split_once(tmp_path: Path, capsys: Capture) -> None:
    folder = fill(tmp_path / "pets")
    first = load(folder)
    assert sizes(first) == [15, 6, 9]
    split = json.loads((folder / "split_Folder.json").read_text())
    assert split["train"][0][0].startswith("cat/")
    other = load(fill(tmp_path / "elsewhere" / "pets"))
    assert [i.impath[-10:] for i in other["train"]] == [i.impath[-10:] for i in first["train"]]
    capsys.readouterr()
    assert load(folder) == first
    assert "split_Folder" not in capsys.readouterr().out
    for number in range(5):
        paint(folder / "cat" / f"new{number}.png")
    assert load(folder) == first
    assert "5 of the listed images are not in it" in capsys.readouterr().out
    (folder / "split_Folder.json").unlink()
    assert sum(sizes(load(folder))) == 35


def test_few_shot_and_new_classes(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets")
    few = load(folder, "DATASET.NUM_SHOTS", 2)
    assert sizes(few) == [6, 6, 9]
    assert load(folder, "DATASET.NUM_SHOTS", 2) == few
    assert (folder / "split_fewshot" / "shot_2-seed_1.json").is_file()
    assert names(load(folder, "DATASET.SUBSAMPLE_CLASSES", "new")["test"]) == {0: "owl"}


def test_subfolders_are_searched_and_other_files_counted(tmp_path: Path, capsys: Capture) -> None:
    folder = fill(tmp_path / "pets")
    hidden = ("cat/.hidden.png", "cat/.trash/b.png", ".cache/c.png")
    for name in ("cat/2021/may/a.JPG", "loose.png", *hidden):
        paint(folder / name)
    (folder / "cat" / "notes.txt").write_text("x")
    (folder / "__MACOSX").mkdir()
    assert sum(sizes(load(folder))) == 31
    printed = capsys.readouterr().out
    assert "Not used in" in printed and ": 2 files" in printed


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    folder = fill(tmp_path / "vehicles", ("bus", "train"))
    assert set(names(load(folder)["test"]).values()) == {"bus", "train"}


def test_folders_next_to_the_parts_are_named(tmp_path: Path, capsys: Capture) -> None:
    folder = fill_parts(tmp_path / "pets", "train", "test")
    (folder / "labels").mkdir()
    (folder / "labels" / "cat.xml").touch()
    assert sizes(load(folder)) == [6, 0, 6]
    printed = capsys.readouterr().out
    assert "Not used next to train, test" in printed and "labels" in printed


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    store = fill(tmp_path / "store")
    folder = tmp_path / "pets"
    (folder / "cat").mkdir(parents=True)
    for path in (store / "cat").iterdir():
        (folder / "cat" / path.name).symlink_to(path)
    (folder / "dog").symlink_to(store / "dog", target_is_directory=True)
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    assert sizes(load(tmp_path / "link")) == [10, 4, 6]
    (store / "cat" / "up").symlink_to(store, target_is_directory=True)
    (store / "dog" / "self").symlink_to(store / "dog", target_is_directory=True)
    (store / "owl" / "ring").symlink_to(store / "owl" / "ring")
    parts = load(store)
    assert len([i for items in parts.values() for i in items if i.classname == "dog"]) == 10


# Names


def test_classnames_txt_names_the_class_folders(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets", ("n02", "n01", "two words"))
    text = "n02 German shepherd\n\nn01\tbarn  owl \ntwo words\tcat\n"
    (folder / "classnames.txt").write_text(text, encoding="utf-8")
    # The order is that of the folders, not of the lines.
    assert names(load(folder)["test"]) == {0: "barn  owl", 1: "German shepherd", 2: "cat"}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (b"cat Cat\n", 'no line for the class folder "dog"'),
        (b"cat Cat\ndog Dog\nowl\n", 'the line "owl"'),
        (b"cat Cat\ncat Puss\n", 'the line "cat Puss"'),
        (b"bird Bird\n", 'the line "bird Bird"'),
        (b"cat pet\ndog pet\nowl bird\n", 'the same name "pet"'),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_bad_class_names(text: bytes, part: str, tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets")
    (folder / "classnames.txt").write_bytes(text)
    assert part in message(folder)


@pytest.mark.parametrize("twin", ["red panda", "Red_Panda"])
def test_names_that_are_equal_for_clip(twin: str, tmp_path: Path) -> None:
    error = message(fill(tmp_path / "pets", ("red_panda", twin)))
    assert "red_panda" in error and twin in error and 'same name "red panda"' in error


def test_names_in_any_script(tmp_path: Path) -> None:
    accented = "chat_siamés"
    folder = tmp_path / "Tiere für mich"
    fill(folder / "train", (unicodedata.normalize("NFC", accented), "ネコ"), 1)
    fill(folder / "test", (unicodedata.normalize("NFD", accented), "ネコ"), 1)
    parts = load(folder, "DATASET.NUM_SHOTS", 1)
    assert names(parts["train"]) == names(parts["test"]) == {0: accented, 1: "ネコ"}
    assert load(folder, "DATASET.NUM_SHOTS", 1) == parts


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["a\\b", "C:", "a:b", "c:\\d", "x\\..\\y", "\\", "a: b", "x\\.."])
def test_any_name_of_a_class_folder(name: str, tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets", ("cat", name))
    (folder / "cat" / "00.png").rename(folder / "cat" / "12:30\\a.png")
    first = load(folder)
    assert {i.classname for i in first["test"]} == {"cat", name}
    assert all(Path(i.impath).is_file() for items in first.values() for i in items)
    assert load(folder) == first
    assert load(folder, "DATASET.NUM_SHOTS", 2) == load(folder, "DATASET.NUM_SHOTS", 2)


# Refused folders


def test_folders_that_are_refused(tmp_path: Path) -> None:
    assert "DATASET.FOLDER.PATH is empty" in message("")
    assert f"{tmp_path / 'none'} is not a folder" in message("none", root=tmp_path)
    assert f"{tmp_path / 'none.csv'} is not a file" in message(tmp_path / "none.csv")
    (tmp_path / "empty").mkdir()
    assert "has no classes" in message(tmp_path / "empty")
    paint(tmp_path / "flat" / "a.png")
    assert "has no classes" in message(tmp_path / "flat")
    assert "parent folder" in message(".", root=fill(tmp_path / "root"))
    fill(tmp_path / "pets")
    paint(tmp_path / "pets" / "cat" / os.fsdecode(b"bad\xff.png"))
    assert "not valid UTF-8" in message(tmp_path / "pets")


def test_classes_that_are_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets")
    (folder / "emu").mkdir()
    (folder / "emu" / "photo.heic").write_text("x")
    assert 'the class "emu" has no images' in message(folder)
    for count in (1, 2, 3):
        fill(folder, ["emu"], count)
        error = message(folder)
        assert f'The class "emu" has {count} images, too few' in error and "four" in error
    fill(folder, ["emu"], 4)
    assert sum(sizes(load(folder))) == 34
    parts = fill_parts(tmp_path / "parts", "train", "test")
    paint(parts / "test" / "emu" / "a.png")
    assert 'the class "emu" of test is not in train' in message(parts)
    (parts / "train" / "emu").mkdir()
    assert 'the class "emu" has no images' in message(parts)


# CSV files


def test_a_csv(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures")
    paths = sorted(folder.rglob("*.png"))
    rows = [[str(path.relative_to(folder)), path.parent.name] for path in paths]
    table = write_csv(folder / "pets.csv", [["path", "label"], *rows])
    first = load(table)
    assert sizes(first) == [15, 6, 9]
    assert load("pictures/pets.csv", root=tmp_path) == first
    assert (folder / "split_pets.json").is_file()
    # Columns in any order next to others, with a byte order mark; parts as listed.
    parts = [["id", "split", "label", "path"]]
    parts += [["7", "train" if n % 2 else "test", r[1], r[0]] for n, r in enumerate(rows)]
    write_csv(table, parts)
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    loaded = load(table)
    assert sizes(loaded) == [15, 0, 15]
    assert names(loaded["train"]) == {0: "cat", 1: "dog", 2: "owl"}
    # Absolute paths inside of the folder are accepted, others are not.
    absolute = [[str(path), path.parent.name] for path in paths]
    (folder / "split_pets.json").unlink()
    assert load(write_csv(table, [["path", "label"], *absolute])) == first
    for path in (f"{tmp_path}/x.png", f"{folder}/../x.png", "C:\\x.png", f"{folder}x/a.png"):
        write_csv(table, [["path", "label"], *absolute[:2], [path, "cat"]])
        assert "line 4: The path" in message(table) and "refused" in message(table)


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        ("a.png,cat", "must name the columns"),
        ("", "must name the columns"),
        ("path,label,path", "must name the columns"),
        ("path,label,Label", "must name the columns"),
        ("path,label", "has no classes"),
        ("path,label|a.png,cat,dog", "line 2: there are 3 values for 2 columns"),
        ("path,label|,cat", "line 2: the path or the label is empty"),
        ("path,label|a.png, ", "line 2: the path or the label is empty"),
        ("path,label|b.png,cat", "b.png does not exist"),
        ("path,label|../a.png,cat", "refused"),
        ("path,label|/etc/passwd,cat", "refused"),
        ("path,label|a.png,cat|a.png,cat", "a.png is listed in line 2 already"),
        ("path,label,split|a.png,cat,dev", 'the split is "dev"'),
        ("path,label,split|a.png,cat,all", 'the split is "all"'),
        ("path,label,split|a.png,cat,test", "needs train and test"),
        ("path,label,split|a.png,cat,train|c.png,dog,test", '"dog" of test is not in train'),
        ("path,label|a.png,cat|c.png,Cat", 'the same name "cat"'),
        ("path,label|a.png,cat", "too few"),
        ("path,label|\udcff\udcfe,cat", "cannot be read as a CSV"),
        ('path,label|"a.png,cat', "cannot be read as a CSV"),
    ],
)
def test_a_bad_csv(lines: str, part: str, tmp_path: Path) -> None:
    for name in ("a.png", "c.png", "d.png"):
        paint(tmp_path / name)
    text = "".join(f"{line}\n" for line in lines.split("|") if line)
    (tmp_path / "pets.csv").write_bytes(os.fsencode(text))
    assert part in message(tmp_path / "pets.csv")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ", ", ";", "\t"])
def test_a_csv_of_a_spreadsheet(separator: str, end: str, tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures", ("cat", "dog"), count=3)
    rows = [["Split", "PATH", "Label", ""]]
    for number, part in enumerate(("Train", "TEST", "validation")):
        rows += [[part, f"{c}/{number:02d}.png", f"{c}, big", ""] for c in ("cat", "dog")]
    lines = [separator.join(f'"{value}"' for value in row) for row in rows]
    (folder / "pets.csv").write_bytes(b"\xef\xbb\xbf" + end.join(lines).encode())
    loaded = load(folder / "pets.csv")
    assert sizes(loaded) == [2, 2, 2]
    assert names(loaded["train"]) == {0: "cat, big", 1: "dog, big"}


@pytest.mark.parametrize("column", ["set", "subset", "Partition", "usage"])
def test_an_unknown_column_of_parts_is_refused(column: str, tmp_path: Path) -> None:
    """The test images of a CSV are never trained on."""
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


def test_a_run_on_own_images(tmp_path: Path, capsys: Capture) -> None:
    for part in ("Train", "Test"):
        fill(tmp_path / "download" / "pets" / part, count=2)
    path = ("DATASET.FOLDER.PATH", "download")
    given = command(tmp_path / "run", tmp_path, *path, trainer="ZeroshotCLIP", dataset="folder")
    finish(given)
    run = results(tmp_path / "run")
    assert (run["dataset"], run["num_test"], run["split_check"]) == ("Folder", 6, {})
    assert "pest is not a folder" in refuse(["--overwrite", *given[:-1], "pest"], capsys)
