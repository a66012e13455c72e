"""The public datasets, each in its own format on disk: classes, parts, splits, few shots."""

import json
import shutil
from collections import Counter
from pathlib import Path
from random import Random

import pytest

import trainers  # noqa: F401  (declares the settings that configs name)
from dassl.config import load_config
from dassl.data.datasets import DATASET_REGISTRY, Datum, SplitDataset
from dassl.data.datasets.split_dataset import SPLIT_SEED
from datasets.imagenet import imagenet_classnames
from datasets.sources import SOURCES
from tests.helpers.miniatures import (
    CONFIG_OF,
    MINIATURES,
    TEST_ONLY,
    TRAINABLE,
    WITH_SPLIT_FILE,
    build,
    image,
    load,
    parts_of,
)
from tests.helpers.refusals import refused
from tests.helpers.runs import ROOT

TEMPLATES = {
    "OxfordPets": "a photo of a {}, a type of pet.",
    "OxfordFlowers": "a photo of a {}, a type of flower.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "DescribableTextures": "{} texture.",
    "EuroSAT": "a centered satellite photo of {}.",
    "Food101": "a photo of {}, a type of food.",
    "UCF101": "a photo of a person doing {}.",
}


def paths_of(dataset: SplitDataset) -> list[list[str]]:
    """Relative paths of train, val and test."""
    start = len(str(dataset.images)) + 1
    return [[item.impath[start:] for item in part] for part in parts_of(dataset)]


@pytest.mark.parametrize("name", MINIATURES)
def test_folders_split_files_and_templates_are_coops(name: str) -> None:
    assert name == load_config(str(ROOT / f"configs/datasets/{CONFIG_OF[name]}.yaml")).DATASET.NAME
    dataset = DATASET_REGISTRY.get(name)
    assert dataset.dataset_dir == MINIATURES[name].folder
    if name in WITH_SPLIT_FILE:
        assert dataset.split_file == f"split_zhou_{name}.json"
    assert dataset.templates[0] == TEMPLATES.get(name, "a photo of a {}.")
    assert len(WITH_SPLIT_FILE) == 9


@pytest.mark.parametrize("name", MINIATURES)
def test_classes_parts_and_halves(name: str, tmp_path: Path) -> None:
    build(name, tmp_path)
    mini, dataset = MINIATURES[name], load(name, tmp_path)
    names = list(mini.classnames)
    assert dataset.classnames == names and dataset.num_classes == len(names)
    parts = parts_of(dataset)
    assert tuple(len(part) for part in parts) == mini.sizes
    everything = [item.impath for part in parts for item in part]
    assert len(set(everything)) == len(everything)
    assert all(Path(path).is_file() for path in everything)
    for part in parts:  # the miniatures are balanced
        assert len(set(Counter(item.label for item in part).values())) <= 1
    middle = (len(names) + 1) // 2
    for word, half in (("base", names[:middle]), ("new", names[middle:])):
        some = load(name, tmp_path, "DATASET.SUBSAMPLE_CLASSES", word)
        assert some.classnames == half
        for part, whole in zip(parts_of(some), parts, strict=True):
            assert {i.impath for i in part} == {i.impath for i in whole if i.classname in half}
            assert all(half[item.label] == item.classname for item in part)


@pytest.mark.parametrize("name", WITH_SPLIT_FILE)
def test_the_split_is_saved_and_independent_of_seed_and_place(name: str, tmp_path: Path) -> None:
    folder = build(name, tmp_path / "1")
    build(name, tmp_path / "2")
    first, second = load(name, tmp_path / "1"), load(name, tmp_path / "2", "SEED", "2")
    assert paths_of(first) == paths_of(second)
    assert paths_of(first)[0] != sorted(paths_of(first)[0])  # shuffled within the classes
    split_file = folder / f"split_zhou_{name}.json"
    content = json.loads(split_file.read_text())
    relative, label, classname = content["train"][0]
    assert (first.images / relative).is_file()
    assert classname == MINIATURES[name].classnames[label]
    for path in MINIATURES[name].annotations:  # the split file replaces them
        (folder / path).unlink()
    assert parts_of(load(name, tmp_path / "1")) == parts_of(first)
    other = {"train": content["test"], "val": content["val"], "test": content["train"]}
    split_file.write_text(json.dumps(other))
    assert parts_of(load(name, tmp_path / "1")) == parts_of(first)[::-1]


def test_classes_are_split_as_in_coops_code(tmp_path: Path) -> None:
    folder = build("DescribableTextures", tmp_path)
    rng = Random(SPLIT_SEED)
    expected: list[list[str]] = [[], [], []]
    for name in ("banded", "polka-dotted", "waffled"):
        paths = sorted(f"{name}/{path.name}" for path in (folder / "images" / name).glob("*.jpg"))
        rng.shuffle(paths)
        for part, cut in zip(expected, (slice(0, 5), slice(5, 7), slice(7, 10)), strict=True):
            part += paths[cut]
    assert paths_of(load("DescribableTextures", tmp_path)) == expected
    folder = build("OxfordPets", tmp_path)
    lines = (folder / "annotations" / "trainval.txt").read_text().splitlines()
    rng = Random(SPLIT_SEED)
    train, val = [], []
    for label in "123":
        images = [f"{image}.jpg" for image, own, *_ in map(str.split, lines) if own == label]
        rng.shuffle(images)
        val += images[:1]
        train += images[1:]
    assert paths_of(load("OxfordPets", tmp_path))[:2] == [train, val]


@pytest.mark.parametrize("name", TRAINABLE)
def test_few_shots(name: str, tmp_path: Path) -> None:
    folder = build(name, tmp_path)
    everything = load(name, tmp_path)
    two = ("DATASET.NUM_SHOTS", "2")
    train, val, test = parts_of(load(name, tmp_path, *two))
    classes = len(MINIATURES[name].classnames)
    assert Counter(item.label for item in train) == dict.fromkeys(range(classes), 2)
    assert len(val) == min(2, MINIATURES[name].sizes[1] // classes) * classes
    assert test == everything.test
    assert set(train) <= set(everything.train_x or [])
    assert (folder / "split_fewshot" / "shot_2-seed_1.json").is_file()
    assert parts_of(load(name, tmp_path, *two)) == [train, val, test]
    other = load(name, tmp_path, *two, "SEED", "2")
    assert {i.impath for i in other.train_x or []} != {i.impath for i in train}


@pytest.mark.parametrize("name", TEST_ONLY)
def test_variants_of_imagenet_only_test(name: str, tmp_path: Path) -> None:
    build(name, tmp_path)
    dataset = load(name, tmp_path, "DATASET.NUM_SHOTS", "16")
    assert [len(part) for part in parts_of(dataset)] == list(MINIATURES[name].sizes)
    assert not (dataset.directory / "split_fewshot").exists()


# What is special about a dataset


def loaded(name: str, root: Path) -> list[list[Datum]]:
    build(name, root)
    return parts_of(load(name, root))


def test_images_and_labels_of_a_line(tmp_path: Path) -> None:
    found = {Path(i.impath).parent.name for part in loaded("Caltech101", tmp_path) for i in part}
    assert found == {"Faces", "Leopards", "Motorbikes", "accordion", "airplanes"}
    flowers = [item for part in loaded("OxfordFlowers", tmp_path) for item in part]
    first = next(item for item in flowers if item.impath.endswith("image_00001.jpg"))
    assert (first.label, first.classname) == (2, "canterbury bells")
    scenes, actions = loaded("SUN397", tmp_path)[2], loaded("UCF101", tmp_path)[2]
    assert scenes[5].impath.endswith("SUN397/c/church/indoor/sun_a5bzqrimafwbiv.jpg")
    handstand = "Handstand_Pushups/v_HandStandPushups_g01_c01.jpg"
    assert actions[5].impath.endswith(f"UCF-101-midframes/{handstand}")


def test_imagenet_is_ordered_by_wordnet_id(tmp_path: Path) -> None:
    train = loaded("ImageNet", tmp_path)[0]
    folders = [Path(item.impath).parent.name for item in train]
    assert folders == sorted(folders)
    assert [train[n].label for n in (0, 5, 10)] == [0, 1, 2]
    folder = build("ImageNetA", tmp_path)
    image(folder / "imagenet-a" / "n01443537" / "0.jpg")
    assert load("ImageNetA", tmp_path).lab2cname == {0: "goldfish", 1: "stingray", 2: "acorn"}


def test_the_shipped_class_names_need_no_list(tmp_path: Path) -> None:
    folder = build("ImageNetV2", tmp_path)
    (folder / "classnames.txt").unlink()
    images = folder / "imagenetv2-matched-frequency-format-val"
    shutil.rmtree(images)
    for label in range(1000):
        (images / str(label)).mkdir(parents=True)
        (images / str(label) / "a.jpeg").touch()
    dataset = load("ImageNetV2", tmp_path)
    assert dataset.classnames == imagenet_classnames()
    assert dataset.classnames[0] == "tench"
    item = (dataset.test or [])[-1]
    assert (Path(item.impath).parent.name, item.classname) == ("999", "toilet paper")


@pytest.mark.parametrize("name", ["SUN397", "EuroSAT", "DMLab"])
def test_training_images_in_all_are_drawn_as_in_vtab(name: str, tmp_path: Path) -> None:
    build(name, tmp_path)
    everything = load(name, tmp_path)
    both = {item.impath for item in [*(everything.train_x or []), *(everything.val or [])]}
    five = load(name, tmp_path, "DATASET.NUM_TRAIN", "5")
    train, val, test = parts_of(five)
    assert (len(train), len(val), test) == (4, 1, everything.test)
    assert len({item.impath for item in [*train, *val]} & both) == 5
    assert five.classnames == everything.classnames  # also of classes without an image
    assert five.num_classes == everything.num_classes
    assert parts_of(load(name, tmp_path, "DATASET.NUM_TRAIN", "5")) == [train, val, test]
    assert parts_of(load(name, tmp_path, "DATASET.NUM_TRAIN", "5", "SEED", "2"))[0] != train
    count = str(len(both))
    whole = parts_of(load(name, tmp_path, "DATASET.NUM_TRAIN", count))
    assert {item.impath for item in whole[0] + whole[1]} == both
    with refused(f"NUM_TRAIN is {len(both) + 1}, but the dataset has only {count}", "0 for all"):
        load(name, tmp_path, "DATASET.NUM_TRAIN", str(len(both) + 1))


def test_images_in_all_exclude_images_a_class() -> None:
    with refused("NUM_TRAIN is 10, images in all, and DATASET.NUM_SHOTS is 1", "set one"):
        load_config(opts=["DATASET.NUM_TRAIN", "10", "DATASET.NUM_SHOTS", "1"])


def test_the_instructions_for_dmlab_are_python(tmp_path: Path) -> None:
    with refused("DMLab", "TFRecords"):
        load("DMLab", tmp_path)
    code = SOURCES["DMLab"][0].instructions.partition('python -c "')[2].removesuffix('"')
    compile(code.replace("{folder}", "data/dmlab"), "instructions", "exec")
