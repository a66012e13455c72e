"""The loaders of public datasets, on miniatures in each dataset's format."""

import json
import shutil
from collections import Counter
from pathlib import Path
from random import Random

import pytest

import datasets  # noqa: F401  (registers)
import trainers  # noqa: F401  (declares the settings that configs name)
from dassl.config import load_config
from dassl.data.datasets import DATASET_REGISTRY, Datum, SplitDataset, build_dataset
from dassl.data.datasets.split_dataset import SPLIT_SEED
from datasets.imagenet import imagenet_classnames
from tests.helpers.miniatures import MINIATURES, build, image

CONFIGS = Path(__file__).parents[2] / "configs" / "datasets"
CONFIG_OF = {
    "caltech101": "Caltech101",
    "oxford_pets": "OxfordPets",
    "stanford_cars": "StanfordCars",
    "oxford_flowers": "OxfordFlowers",
    "food101": "Food101",
    "fgvc_aircraft": "FGVCAircraft",
    "sun397": "SUN397",
    "dtd": "DescribableTextures",
    "eurosat": "EuroSAT",
    "ucf101": "UCF101",
    "imagenet": "ImageNet",
    "imagenetv2": "ImageNetV2",
    "imagenet_sketch": "ImageNetSketch",
    "imagenet_a": "ImageNetA",
    "imagenet_r": "ImageNetR",
}
TEMPLATES = {
    "OxfordPets": "a photo of a {}, a type of pet.",
    "OxfordFlowers": "a photo of a {}, a type of flower.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "DescribableTextures": "{} texture.",
    "EuroSAT": "a centered satellite photo of {}.",
    "Food101": "a photo of {}, a type of food.",
    "UCF101": "a photo of a person doing {}.",
}
WITH_SPLIT_FILE = [n for n in MINIATURES if DATASET_REGISTRY.get(n).split_file]
TRAINABLE = [name for name, mini in MINIATURES.items() if mini.sizes[0]]
TEST_ONLY = [name for name in MINIATURES if name not in TRAINABLE]


def load(name: str, root: Path, *opts: str) -> SplitDataset:
    """The dataset as a run with seed 1 sees it."""
    fixed = ("DATASET.NAME", name, "DATASET.ROOT", str(root), "SEED", "1")
    return build_dataset(load_config(opts=[*fixed, *opts]))


def parts_of(dataset: SplitDataset) -> list[list[Datum]]:
    """Train, val and test."""
    return [list(part or []) for part in (dataset.train_x, dataset.val, dataset.test)]


def paths_of(dataset: SplitDataset) -> list[list[str]]:
    """Relative paths of train, val and test."""
    start = len(str(dataset.images)) + 1
    return [[item.impath[start:] for item in part] for part in parts_of(dataset)]


@pytest.mark.parametrize("config", CONFIG_OF)
def test_folders_split_files_and_templates_equal_coops(config: str) -> None:
    name = CONFIG_OF[config]
    cfg = load_config(str(CONFIGS / f"{config}.yaml"))
    assert name == cfg.DATASET.NAME
    dataset = DATASET_REGISTRY.get(name)
    assert dataset.dataset_dir == MINIATURES[name].folder
    if name in WITH_SPLIT_FILE:
        assert dataset.split_file == f"split_zhou_{name}.json"
    assert dataset.templates[0] == TEMPLATES.get(name, "a photo of a {}.")
    assert len(WITH_SPLIT_FILE) == 9 and set(CONFIG_OF.values()) == set(MINIATURES)


@pytest.mark.parametrize("name", MINIATURES)
def test_without_a_split_file(name: str, tmp_path: Path) -> None:
    build(name, tmp_path)
    dataset = load(name, tmp_path)
    mini = MINIATURES[name]
    assert dataset.classnames == list(mini.classnames)
    assert dataset.num_classes == len(mini.classnames)
    parts = parts_of(dataset)
    assert tuple(len(part) for part in parts) == mini.sizes
    everything = [item.impath for part in parts for item in part]
    assert len(set(everything)) == len(everything)
    assert all(Path(path).is_file() for path in everything)
    for part in parts:  # the miniatures are balanced
        assert len(set(Counter(item.label for item in part).values())) <= 1


@pytest.mark.parametrize("name", WITH_SPLIT_FILE)
def test_the_split_is_saved_and_reused(name: str, tmp_path: Path) -> None:
    folder = build(name, tmp_path)
    first = load(name, tmp_path)
    split_file = folder / f"split_zhou_{name}.json"
    content = json.loads(split_file.read_text())
    relative, label, classname = content["train"][0]
    assert (first.images / relative).is_file()
    assert classname == MINIATURES[name].classnames[label]
    for path in MINIATURES[name].annotations:  # the split file replaces them
        (folder / path).unlink()
    assert parts_of(load(name, tmp_path)) == parts_of(first)
    other = {"train": content["test"], "val": content["val"], "test": content["train"]}
    split_file.write_text(json.dumps(other))
    assert parts_of(load(name, tmp_path)) == parts_of(first)[::-1]


@pytest.mark.parametrize("name", WITH_SPLIT_FILE)
def test_the_split_does_not_depend_on_seed_and_place(name: str, tmp_path: Path) -> None:
    found = []
    for number in ("1", "2"):
        root = tmp_path / number
        build(name, root)
        found.append(paths_of(load(name, root, "SEED", number)))
    assert found[0] == found[1]
    assert found[0][0] != sorted(found[0][0])  # shuffled within the classes


def test_class_folders_are_split_as_by_coop(tmp_path: Path) -> None:
    folder = build("DescribableTextures", tmp_path)
    rng = Random(SPLIT_SEED)
    expected: list[list[str]] = [[], [], []]
    for name in ("banded", "polka-dotted", "waffled"):
        paths = sorted(f"{name}/{path.name}" for path in (folder / "images" / name).glob("*.jpg"))
        rng.shuffle(paths)
        for part, cut in zip(expected, (slice(0, 5), slice(5, 7), slice(7, 10)), strict=True):
            part += paths[cut]
    assert paths_of(load("DescribableTextures", tmp_path)) == expected


def test_validation_is_split_off_as_by_coop(tmp_path: Path) -> None:
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
    dataset = load(name, tmp_path, "DATASET.NUM_SHOTS", "2")
    train, val, test = parts_of(dataset)
    classes = len(MINIATURES[name].classnames)
    assert Counter(item.label for item in train) == dict.fromkeys(range(classes), 2)
    available = MINIATURES[name].sizes[1] // classes
    assert len(val) == min(2, available) * classes
    assert test == everything.test
    assert set(train) <= set(everything.train_x or [])
    assert (folder / "split_fewshot" / "shot_2-seed_1.json").is_file()
    assert parts_of(load(name, tmp_path, "DATASET.NUM_SHOTS", "2")) == [train, val, test]
    other = load(name, tmp_path, "DATASET.NUM_SHOTS", "2", "SEED", "2")
    assert {i.impath for i in other.train_x or []} != {i.impath for i in train}


@pytest.mark.parametrize("name", MINIATURES)
def test_base_and_new_classes(name: str, tmp_path: Path) -> None:
    build(name, tmp_path)
    names = list(MINIATURES[name].classnames)
    middle = (len(names) + 1) // 2
    everything = load(name, tmp_path, "DATASET.NUM_SHOTS", "1")
    for word, half in (("base", names[:middle]), ("new", names[middle:])):
        opts = ("DATASET.SUBSAMPLE_CLASSES", word, "DATASET.NUM_SHOTS", "1")
        dataset = load(name, tmp_path, *opts)
        assert dataset.classnames == half
        for part, whole in zip(parts_of(dataset), parts_of(everything), strict=True):
            assert {i.impath for i in part} == {i.impath for i in whole if i.classname in half}
            assert all(half[item.label] == item.classname for item in part)


@pytest.mark.parametrize("name", TEST_ONLY)
def test_variants_of_imagenet_have_only_test_images(name: str, tmp_path: Path) -> None:
    build(name, tmp_path)
    dataset = load(name, tmp_path, "DATASET.NUM_SHOTS", "16")
    assert [len(part) for part in parts_of(dataset)] == list(MINIATURES[name].sizes)
    assert not (dataset.directory / "split_fewshot").exists()


def test_caltech_ignores_the_background_and_the_easy_faces(tmp_path: Path) -> None:
    build("Caltech101", tmp_path)
    found = {Path(p).parent.name for part in paths_of(load("Caltech101", tmp_path)) for p in part}
    assert found == {"Faces", "Leopards", "Motorbikes", "accordion", "airplanes"}


def test_labels_of_flowers_follow_the_numbers_of_the_names(tmp_path: Path) -> None:
    build("OxfordFlowers", tmp_path)
    items = [item for part in parts_of(load("OxfordFlowers", tmp_path)) for item in part]
    first = next(item for item in items if item.impath.endswith("image_00001.jpg"))
    assert (first.label, first.classname) == (2, "canterbury bells")


def test_sun_and_ucf_find_the_image_of_a_line(tmp_path: Path) -> None:
    build("SUN397", tmp_path)
    build("UCF101", tmp_path)
    scenes = load("SUN397", tmp_path).test or []
    assert scenes[5].impath.endswith("SUN397/c/church/indoor/sun_a5bzqrimafwbiv.jpg")
    actions = load("UCF101", tmp_path).test or []
    expected = "UCF-101-midframes/Handstand_Pushups/v_HandStandPushups_g01_c01.jpg"
    assert actions[5].impath.endswith(expected)


def test_imagenet_is_ordered_by_wordnet_id(tmp_path: Path) -> None:
    build("ImageNet", tmp_path)
    dataset = load("ImageNet", tmp_path)
    folders = [Path(item.impath).parent.name for item in dataset.train_x or []]
    assert folders == sorted(folders)
    assert [(dataset.train_x or [])[n].label for n in (0, 5, 10)] == [0, 1, 2]


def test_class_names_without_a_list(tmp_path: Path) -> None:
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


def test_imagenet_a_has_its_own_labels(tmp_path: Path) -> None:
    folder = build("ImageNetA", tmp_path)
    image(folder / "imagenet-a" / "n01443537" / "0.jpg")
    dataset = load("ImageNetA", tmp_path)
    assert dataset.lab2cname == {0: "goldfish", 1: "stingray", 2: "acorn"}
