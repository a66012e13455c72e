"""Public datasets with missing or wrong files: one sentence names them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from dassl.data.datasets import Source
from dassl.data.datasets.source import refuse_missing
from dassl.data.images import read_image
from safeio.errors import UserError
from tests.helpers.miniatures import MINIATURES, WITH_SPLIT_FILE, build, image, load, parts_of, text
from tests.helpers.runs import Capture


@pytest.mark.parametrize("name", MINIATURES)
def test_all_missing_files_are_named_at_once(name: str, tmp_path: Path) -> None:
    place = rf"contains {MINIATURES[name].folder}/, .*python -m nemesis download {name} --root"
    with pytest.raises(UserError, match=place):
        load(name, tmp_path / "nowhere")
    with pytest.raises(UserError) as caught:
        load(name, tmp_path)
    message = str(caught.value)
    assert f"python -m nemesis download {name} --root {tmp_path}" in message
    assert "\n" not in message
    folder = build(name, tmp_path / "built")
    needed = set(MINIATURES[name].annotations)
    needed |= {path.name for path in folder.iterdir() if path.is_dir()} & {"images", "jpg"}
    for path in needed:
        assert str(tmp_path / MINIATURES[name].folder / path) in message
    if MINIATURES[name].annotations:
        assert f"or split_zhou_{name}.json instead" in message


@pytest.mark.parametrize("name", [n for n in WITH_SPLIT_FILE if MINIATURES[n].annotations])
def test_a_missing_annotation_file(name: str, tmp_path: Path) -> None:
    folder = build(name, tmp_path)
    for path in MINIATURES[name].annotations:
        (folder / path).rename(tmp_path / "away")
        with pytest.raises(UserError, match="is missing") as caught:
            load(name, tmp_path)
        assert str(folder / path) in str(caught.value)
        assert "download what is available" in str(caught.value)
        (tmp_path / "away").rename(folder / path)
    assert load(name, tmp_path).num_classes == len(MINIATURES[name].classnames)


def test_the_error_says_where_a_missing_part_is_available(tmp_path: Path) -> None:
    sources = (
        Source("images", urls=("gdrive:abc123",)),
        Source("lists", urls=("https://host/lists.zip", "https://mirror/lists.zip")),
        Source("by_hand", instructions="sign in at host and unpack it into {folder}/by_hand"),
    )
    paths = [("images", ""), ("lists/a.txt", "or x.json instead"), ("by_hand", "")]
    with pytest.raises(UserError) as caught:
        refuse_missing("Pets", tmp_path, "pets", paths, sources)
    assert str(caught.value) == (
        f"Pets: {tmp_path}/pets/images is missing (from https://drive.google.com/uc?id=abc123); "
        f"{tmp_path}/pets/lists/a.txt is missing (from https://host/lists.zip, or x.json "
        f"instead); {tmp_path}/pets/by_hand is missing (sign in at host and unpack it into "
        f"{tmp_path}/pets/by_hand); download what is available with: "
        f"python -m nemesis download Pets --root {tmp_path}"
    )


@pytest.mark.parametrize(
    ("name", "file", "line", "message"),
    [
        ("FGVCAircraft", "images_variant_val.txt", "1000009 A380", '"A380", which is not in var'),
        ("FGVCAircraft", "images_variant_val.txt", "1000009", "line 10: 2 words are expected"),
        ("FGVCAircraft", "images_variant_val.txt", "../../x Yak-42", "leads out of"),
        ("SUN397", "Testing_01.txt", "/z/zoo/sun_a.jpg", '"/z/zoo", which is not in ClassName'),
        ("UCF101", "ucfTrainTestlist/testlist01.txt", "Zoo/v_Zoo_g01_c01.avi", '"Zoo", which'),
        ("OxfordPets", "annotations/test.txt", "pug_1 0 1 1", r"\('pug_1.jpg', '0', 'pug'\)"),
        ("OxfordPets", "annotations/test.txt", "pug_1 one 1 1", "'one'"),
        ("OxfordPets", "annotations/test.txt", "pug_1 4 1 1", '"pug" has no training images'),
        ("OxfordPets", "annotations/test.txt", "pug_1 1 1 1", '0 has two names, "abyssinian" and'),
        ("OxfordPets", "annotations/test.txt", "pug_1 9 1 1", "no image has the label 3"),
    ],
)
def test_a_wrong_line(name: str, file: str, line: str, message: str, tmp_path: Path) -> None:
    path = build(name, tmp_path) / file
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError, match=message):
        load(name, tmp_path)
    assert not list(tmp_path.rglob("split_*"))  # nothing wrong is saved


def test_broken_matlab_files(tmp_path: Path) -> None:
    folder = build("StanfordCars", tmp_path)
    path = folder / "cars_test_annos_withlabels.mat"
    whole = path.read_bytes()
    other = tmp_path / "other.mat"
    savemat(other, {"annotations": np.arange(4)})
    for content in (b"", b"no matlab", whole[:200], whole[: len(whole) // 2], other.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r'withlabels\.mat is not a MATLAB file .*"annotations'):
            load("StanfordCars", tmp_path)
    path.write_bytes(whole)
    names = np.empty((1, 2), object)
    names[0] = ("Audi S4 Sedan 2012", "BMW X6 SUV 2012")
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    with pytest.raises(UserError, match=r'contains "3", which is not in devkit/cars_meta\.mat'):
        load("StanfordCars", tmp_path)


def test_missing_names_and_class_folders(tmp_path: Path) -> None:
    names = build("OxfordFlowers", tmp_path) / "cat_to_name.json"
    names.write_text('{"1": "pink primrose"}')
    (build("Food101", tmp_path) / "images" / "tacos").mkdir()
    image(build("ImageNetA", tmp_path) / "imagenet-a" / "n00000001" / "0.jpg")
    shutil.rmtree(build("ImageNet", tmp_path) / "images" / "val" / "n01440764")
    for name, message in (
        ("OxfordFlowers", r'contains "3", which is not in .*cat_to_name\.json'),
        ("Food101", "class folders without images: tacos;"),
        ("ImageNetA", "n00000001 is not the folder of one of the 2 known"),
        ("ImageNet", r"images/val/n01440764 is missing: .* 1 are missing"),
    ):
        with pytest.raises(UserError, match=message):
            load(name, tmp_path)
    names.write_text("[")
    with pytest.raises(UserError, match="is not a JSON file of class names"):
        load("OxfordFlowers", tmp_path)


@pytest.mark.parametrize(
    ("repeat", "images", "done"),
    [("False", 2 + 3 + 3, "all of which are used"), ("True", 9, "some are used more than once")],
)
def test_fewer_images_than_shots(
    repeat: str, images: int, done: str, tmp_path: Path, capsys: Capture
) -> None:
    """By default none is drawn twice, as in CoOp's code."""
    folder = build("FGVCAircraft", tmp_path)
    path = folder / "images_variant_train.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    shots = ("DATASET.NUM_SHOTS", "3", "DATASET.REPEAT_SHOTS", repeat)
    drawn = [load("FGVCAircraft", tmp_path, *shots).train_x or [] for _ in range(2)]
    assert len(drawn[0]) == images
    assert drawn[0] == drawn[1]  # when they are drawn, and when they were drawn before
    assert len(set(drawn[0])) == 2 + 3 + 3 if repeat == "False" else len(set(drawn[0])) <= 8
    line = f"Classes with fewer than 3 training images, {done}: 707-320 (2)"
    assert capsys.readouterr().out.count(line) == 2


def test_two_classes_of_one_name(tmp_path: Path, capsys: Capture) -> None:
    folder = build("ImageNet", tmp_path)
    lines = ("n01440764 missile", "n01443537 goldfish", "n01484850 missile")
    text(folder / "classnames.txt", *lines)
    dataset = load("ImageNet", tmp_path)
    assert dataset.classnames == ["missile", "goldfish", "missile"]
    assert 'Several classes are called "missile"' in capsys.readouterr().out


def test_a_split_file_that_names_other_images(tmp_path: Path) -> None:
    folder = build("OxfordPets", tmp_path)
    dataset = load("OxfordPets", tmp_path)
    last = Path((dataset.test or [])[-1].impath)
    last.unlink()  # one of many: found when it is opened
    missing = (load("OxfordPets", tmp_path).test or [])[-1].impath
    with pytest.raises(UserError, match=rf"{last} does not exist"):
        read_image(missing)
    (folder / "images").rename(folder / "pictures")
    (folder / "images").mkdir()
    with pytest.raises(UserError, match=r"but .*split_zhou_OxfordPets\.json contains it"):
        load("OxfordPets", tmp_path)


def test_other_alphabets_and_links(tmp_path: Path) -> None:
    folder = build("Food101", tmp_path)
    elsewhere = tmp_path / "other disk"
    (folder / "images" / "waffles").rename(elsewhere)
    for number, path in enumerate(sorted(elsewhere.iterdir())):
        path.rename(elsewhere / f"gâteau ☕ {number}.jpg")
    (folder / "images" / "gâteaux").symlink_to(elsewhere, target_is_directory=True)
    for shots in ("-1", "2", "2"):
        dataset = load("Food101", tmp_path, "DATASET.NUM_SHOTS", shots)
        assert dataset.classnames == ["apple_pie", "baby_back_ribs", "gâteaux"]
        items = [item for part in parts_of(dataset) for item in part]
        assert all(read_image(item.impath).size == (12, 10) for item in items)
    content = json.loads((folder / "split_zhou_Food101.json").read_text(encoding="utf-8"))
    assert content["test"][-1][0].startswith("gâteaux/gâteau ☕")
