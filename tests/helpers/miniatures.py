"""Every public dataset in its own format on disk, with a few tiny images a class.

They are made without the code under test: folders, lists, MATLAB structs and JSON files have the
layout in which the publishers and CoOp distribute them.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

import datasets  # noqa: F401  (registers)
from dassl.config import load_config
from dassl.data.datasets import DATASET_REGISTRY, Datum, SplitDataset, build_dataset

PER_CLASS = 10


@dataclass(frozen=True)
class Miniature:
    """A dataset on disk, and the parts and classes that its loader has to return.

    Attributes:
        folder: below the data root.
        write: writes it.
        classnames: the class names by label.
        sizes: of train, val and test without a split file.
        annotations: files that a split file replaces.
    """

    folder: str
    write: Callable[[Path], None]
    classnames: Sequence[str]
    sizes: tuple[int, int, int]
    annotations: Sequence[str] = ()


def image(path: Path, shade: int = 0) -> None:
    """Write a picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (shade * 37 % 256, shade * 91 % 256, 128)).save(path)


def text(path: Path, *lines: str, end: str = "\n") -> None:
    """Write a list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode())


def class_folders(
    directory: Path, names: Sequence[str], file: str, count: int = PER_CLASS, start: int = 1
) -> None:
    """Write `count` images a class; `file` is formatted with the folder's name and a number."""
    for shade, name in enumerate(names):
        for number in range(start, start + count):
            image(directory / name / file.format(name=name, number=number), shade)


def caltech101(folder: Path) -> None:
    names = ["BACKGROUND_Google", "Faces", "Faces_easy", "Leopards", "Motorbikes"]
    names += ["accordion", "airplanes"]
    class_folders(folder / "101_ObjectCategories", names, "image_{number:04d}.jpg")


def describable_textures(folder: Path) -> None:
    class_folders(folder / "images", TEXTURES, "{name}_{number:04d}.jpg")
    text(folder / "images" / "waffled" / ".directory", "[Dolphin]")
    text(folder / "labels" / "train1.txt", "banded/banded_0001.jpg")


def eurosat(folder: Path) -> None:
    names = ["AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture"]
    names += ["PermanentCrop", "Residential", "River", "SeaLake"]
    class_folders(folder / "2750", names, "{name}_{number}.jpg")


def food101(folder: Path) -> None:
    class_folders(folder / "images", FOODS, "10{number}.jpg")
    text(folder / "meta" / "classes.txt", *FOODS)


def oxford_flowers(folder: Path) -> None:
    labels = np.repeat(np.array([[3, 1, 2]], np.uint8), PER_CLASS, axis=1)
    for number, label in enumerate(labels[0], 1):
        image(folder / "jpg" / f"image_{number:05d}.jpg", int(label))
    savemat(folder / "imagelabels.mat", {"labels": labels})
    names = {"2": "hard-leaved pocket orchid", "1": "pink primrose", "3": "canterbury bells"}
    (folder / "cat_to_name.json").write_text(json.dumps(names))


def oxford_pets(folder: Path) -> None:
    breeds = (("Abyssinian", 1), ("american_bulldog", 2), ("Egyptian_Mau", 1))
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    for label, (breed, species) in enumerate(breeds, 1):
        for number in range(1, PER_CLASS + 1):
            image(folder / "images" / f"{breed}_{number}.jpg", label)
            part = "trainval" if number > 5 else "test"
            lists[part].append(f"{breed}_{number} {label} {species} {label}")
    text(folder / "images" / "Abyssinian_100.mat", "no image")
    for part, lines in lists.items():
        text(folder / "annotations" / f"{part}.txt", *lines)


CARS = ("AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012")
CAR_FIELDS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")


def car_annotations(path: Path, images: Path) -> None:
    """Write a 1 x n struct array whose fields are 1 x 1 numbers and a string."""
    rows = np.zeros((1, 5 * len(CARS)), [(field, object) for field in CAR_FIELDS])
    for number in range(rows.size):
        name, label = f"{number + 1:05d}.jpg", number % len(CARS) + 1
        image(images / name, label)
        box = [np.array([[edge]], np.uint16) for edge in (39, 116, 569, 375)]
        rows[0, number] = (*box, np.array([[label]], np.uint8), name)
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"annotations": rows})


def stanford_cars(folder: Path) -> None:
    car_annotations(folder / "devkit" / "cars_train_annos.mat", folder / "cars_train")
    car_annotations(folder / "cars_test_annos_withlabels.mat", folder / "cars_test")
    names = np.empty((1, len(CARS)), object)
    names[0] = CARS
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})


def sun397(folder: Path) -> None:
    scenes = ("/a/abbey", "/c/church/indoor", "/y/youth_hostel")
    text(folder / "ClassName.txt", *scenes)
    lists: dict[str, list[str]] = {"Training_01": [], "Testing_01": []}
    for shade, scene in enumerate(scenes):
        for number in range(PER_CLASS):
            relative = f"{scene}/sun_a{number}bzqrimafwbiv.jpg"
            image(folder / "SUN397" / relative[1:], shade)
            lists["Training_01" if number < 5 else "Testing_01"].append(relative)
    for part, lines in lists.items():
        text(folder / f"{part}.txt", *lines)


def ucf101(folder: Path) -> None:
    actions = {"ApplyEyeMakeup": "Apply_Eye_Makeup", "HandstandPushups": "Handstand_Pushups"}
    actions["YoYo"] = "Yo_Yo"
    lists = folder / "ucfTrainTestlist"
    text(lists / "classInd.txt", *(f"{n} {a}" for n, a in enumerate(actions, 1)), end="\r\n")
    train, test = [], []
    for label, (action, words) in enumerate(actions.items(), 1):
        for group in range(1, PER_CLASS + 1):
            video = f"v_{action.replace('dst', 'dSt')}_g{group:02d}_c01"
            image(folder / "UCF-101-midframes" / words / f"{video}.jpg", label)
            if group > 5:
                train.append(f"{action}/{video}.avi {label}")
            else:
                test.append(f"{action}/{video}.avi")
    text(lists / "trainlist01.txt", *train, end="\r\n")
    text(lists / "testlist01.txt", *test, end="\r\n")


VARIANTS = ("707-320", "Boeing 717", "Yak-42")


def fgvc_aircraft(folder: Path) -> None:
    text(folder / "variants.txt", *VARIANTS)
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label, variant in enumerate(VARIANTS):
        for number in range(9):
            name = f"{1000000 + 100 * label + number:07d}"
            image(folder / "images" / f"{name}.jpg", label)
            lists[("train", "val", "test")[number % 3]].append(f"{name} {variant}")
    for part, lines in lists.items():
        text(folder / f"images_variant_{part}.txt", *lines)


SYNSETS = {"n01440764": "tench", "n01443537": "goldfish", "n01484850": "great white shark"}
KNOWN = tuple(f"{wnid} {name}" for wnid, name in reversed(SYNSETS.items()))


def imagenet(folder: Path) -> None:
    text(folder / "classnames.txt", *KNOWN)
    class_folders(folder / "images" / "train", tuple(SYNSETS), "{name}_{number}.JPEG", 5)
    val = "ILSVRC2012_val_{number:08d}.JPEG"
    class_folders(folder / "images" / "val", tuple(SYNSETS), val, 2)


def dmlab(folder: Path) -> None:
    for part, count in (("train", 4), ("val", 3), ("test", 2)):
        class_folders(folder / part, tuple("012345"), "{number:05d}.png", count)


def imagenetv2(folder: Path) -> None:
    text(folder / "classnames.txt", *KNOWN)
    images = folder / "imagenetv2-matched-frequency-format-val"
    class_folders(images, ("0", "1", "2"), "{number}a7c9.jpeg", 2)


def imagenet_sketch(folder: Path) -> None:
    text(folder / "classnames.txt", *KNOWN)
    class_folders(folder / "images", tuple(SYNSETS), "sketch_{number}.JPEG", 2)


def imagenet_a(folder: Path) -> None:
    images = folder / "imagenet-a"
    class_folders(images, ("n01498041", "n12267677"), "0.00{number}_fox _ 0.9.jpg", 2)
    text(images / "README.txt", "n01498041 stingray")


def imagenet_r(folder: Path) -> None:
    images = folder / "imagenet-r"
    class_folders(images, ("n01443537", "n02749479"), "art_{number}.jpg", 2)
    text(images / "README.txt", "n01443537 goldfish")


UCF_LISTS = tuple(f"ucfTrainTestlist/{n}.txt" for n in ("classInd", "trainlist01", "testlist01"))
CAR_FILES = ("devkit/cars_train_annos.mat", "devkit/cars_meta.mat")
CAR_NAMES = ("2000 AM General Hummer SUV", "2012 Acura RL Sedan", "2012 Ram C/V Cargo Van Minivan")
TEXTURES, FOODS = ("banded", "polka-dotted", "waffled"), ("apple_pie", "baby_back_ribs", "waffles")
FLOWERS = ("pink primrose", "hard-leaved pocket orchid", "canterbury bells")
PETS = ("abyssinian", "american_bulldog", "egyptian_mau")
OBJECTS = ("face", "leopard", "motorbike", "accordion", "airplane")
LAND = (
    *("Annual Crop Land", "Forest", "Herbaceous Vegetation Land", "Highway or Road"),
    *("Industrial Buildings", "Pasture Land", "Permanent Crop Land", "Residential Buildings"),
    *("River", "Sea or Lake"),
)
FISH = tuple(SYNSETS.values())
CUT, HALF, ONLY = (15, 6, 9), (12, 3, 15), (0, 0, 6)
MINIATURES = {
    "Caltech101": Miniature("caltech-101", caltech101, OBJECTS, (25, 10, 15)),
    "DescribableTextures": Miniature("dtd", describable_textures, TEXTURES, CUT),
    "EuroSAT": Miniature("eurosat", eurosat, LAND, (50, 20, 30)),
    "Food101": Miniature("food-101", food101, FOODS, CUT),
    "OxfordFlowers": Miniature(
        *("oxford_flowers", oxford_flowers, FLOWERS, CUT, ("imagelabels.mat", "cat_to_name.json"))
    ),
    "OxfordPets": Miniature(
        *("oxford_pets", oxford_pets, PETS, HALF),
        ("annotations/trainval.txt", "annotations/test.txt"),
    ),
    "StanfordCars": Miniature(
        *("stanford_cars", stanford_cars, CAR_NAMES, HALF),
        (*CAR_FILES, "cars_test_annos_withlabels.mat"),
    ),
    "SUN397": Miniature(
        *("sun397", sun397, ("abbey", "indoor church", "youth_hostel"), HALF),
        ("ClassName.txt", "Training_01.txt", "Testing_01.txt"),
    ),
    "UCF101": Miniature(
        *("ucf101", ucf101, ("Apply_Eye_Makeup", "Handstand_Pushups", "Yo_Yo"), HALF), UCF_LISTS
    ),
    "FGVCAircraft": Miniature("fgvc_aircraft", fgvc_aircraft, VARIANTS, (9, 9, 9)),
    "ImageNet": Miniature("imagenet", imagenet, FISH, (15, 0, 6)),
    "DMLab": Miniature("dmlab", dmlab, tuple("012345"), (24, 18, 12)),
    "ImageNetV2": Miniature("imagenetv2", imagenetv2, FISH, ONLY),
    "ImageNetSketch": Miniature("imagenet-sketch", imagenet_sketch, FISH, ONLY),
    "ImageNetA": Miniature("imagenet-adversarial", imagenet_a, ("stingray", "acorn"), (0, 0, 4)),
    "ImageNetR": Miniature(
        "imagenet-rendition", imagenet_r, ("goldfish", "assault rifle"), (0, 0, 4)
    ),
}
CONFIGS = (
    "caltech101 dtd eurosat food101 oxford_flowers oxford_pets stanford_cars sun397 ucf101 "
    "fgvc_aircraft imagenet dmlab imagenetv2 imagenet_sketch imagenet_a imagenet_r"
)
CONFIG_OF = dict(zip(MINIATURES, CONFIGS.split(), strict=True))
WITH_SPLIT_FILE = [n for n in MINIATURES if DATASET_REGISTRY.get(n).split_file]
TRAINABLE = [name for name, mini in MINIATURES.items() if mini.sizes[0]]
TEST_ONLY = [name for name in MINIATURES if name not in TRAINABLE]


def build(name: str, root: Path) -> Path:
    """Write a dataset below a data root; returns its folder."""
    folder = root / MINIATURES[name].folder
    folder.mkdir(parents=True)
    MINIATURES[name].write(folder)
    return folder


def load(name: str, root: Path, *opts: str) -> SplitDataset:
    """The dataset of a run with seed 1."""
    fixed = ("DATASET.NAME", name, "DATASET.ROOT", str(root), "SEED", "1")
    return build_dataset(load_config(opts=[*fixed, *opts]))


def parts_of(dataset: SplitDataset) -> list[list[Datum]]:
    """Train, val and test."""
    return [list(part or []) for part in (dataset.train_x, dataset.val, dataset.test)]
