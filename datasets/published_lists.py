"""Datasets with published lists of training and test images."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dassl.data.datasets import (
    DATASET_REGISTRY,
    Split,
    SplitDataset,
    lookup,
    read_items,
    read_mat,
    read_rows,
    split_lists,
)
from datasets.sources import SOURCES


class PublishedLists(SplitDataset):
    """Base class: CoOp's split file, or the published lists with 20% of the first for validation.

    The last two `split_sources` are the lists for training and for the test.

    Attributes:
        first_label: label of the first class in the lists.
    """

    first_label = 1

    def make_split(self) -> Split:
        """Split the first list into training and validation images."""
        paths = [self.directory / name for name in self.split_sources[-2:]]
        return split_lists(
            *(read_items(self.entries(p), self.images, p, self.first_label) for p in paths)
        )

    def entries(self, path: Path) -> Iterable[tuple[str, Any, str]]:
        """Hook: yield path, label and class name of each image of a list."""
        raise NotImplementedError


@DATASET_REGISTRY.register()
class OxfordPets(PublishedLists):
    """Oxford-IIIT Pet: breeds of cats and dogs (Parkhi et al., CVPR 2012).

    37 classes; 2,944 training, 736 validation and 3,669 test images.
    """

    dataset_dir = "oxford_pets"
    split_file = "split_zhou_OxfordPets.json"
    split_sources = ("annotations/trainval.txt", "annotations/test.txt")
    sources = SOURCES["OxfordPets"]
    templates = ("a photo of a {}, a type of pet.",)

    def entries(self, path: Path) -> Iterator[tuple[str, str, str]]:
        """Yield the entries of a list with lines "Abyssinian_100 1 1 1"."""
        for image, label in read_rows(path, columns=2):
            yield f"{image}.jpg", label.split()[0], image.rpartition("_")[0].lower()


@DATASET_REGISTRY.register()
class StanfordCars(PublishedLists):
    """Stanford Cars: makes and models (Krause et al., ICCV workshop 2013).

    196 classes; 6,509 training, 1,635 validation and 8,041 test images.
    """

    dataset_dir = "stanford_cars"
    image_dir = "."
    split_file = "split_zhou_StanfordCars.json"
    split_sources = (
        "devkit/cars_meta.mat",
        "devkit/cars_train_annos.mat",
        "cars_test_annos_withlabels.mat",
    )
    sources = SOURCES["StanfordCars"]

    def entries(self, path: Path) -> Iterator[tuple[str, int, str]]:
        """Yield the annotations of the images in cars_train or cars_test."""
        source, train, _ = self.split_sources
        folder = "cars_train" if path == self.directory / train else "cars_test"
        names = dict(enumerate(read_mat(self.directory / source, "class_names"), 1))
        for image, label in read_mat(path, "annotations", ("fname", "class")):
            model, _, year = str(lookup(names, label, path, source)).rpartition(" ")
            yield f"{folder}/{image}", label, f"{year} {model}"


@DATASET_REGISTRY.register()
class SUN397(PublishedLists):
    """SUN397: scenes (Xiao et al., CVPR 2010).

    397 classes; 15,880 training, 3,970 validation and 19,850 test images (the first of ten
    partitions).
    """

    dataset_dir = "sun397"
    image_dir = "SUN397"
    split_file = "split_zhou_SUN397.json"
    split_sources = ("ClassName.txt", "Training_01.txt", "Testing_01.txt")
    sources = SOURCES["SUN397"]
    first_label = 0

    def entries(self, path: Path) -> Iterator[tuple[str, int, str]]:
        """Yield the entries of a list with lines "/c/church/indoor/sun_x.jpg"."""
        source = self.split_sources[0]
        labels = {row[0]: label for label, row in enumerate(read_rows(self.directory / source))}
        for (image,) in read_rows(path):
            folder = image.rpartition("/")[0]
            label, image = lookup(labels, folder, path, source), image.removeprefix("/")
            yield image, label, " ".join(reversed(image.split("/")[1:-1]))  # "indoor church"


@DATASET_REGISTRY.register()
class UCF101(PublishedLists):
    """UCF101: the middle frames of videos of actions (Soomro et al., 2012).

    101 classes; 7,639 training, 1,898 validation and 3,783 test images (the first of three splits).
    """

    dataset_dir = "ucf101"
    image_dir = "UCF-101-midframes"
    split_file = "split_zhou_UCF101.json"
    split_sources = (
        "ucfTrainTestlist/classInd.txt",
        "ucfTrainTestlist/trainlist01.txt",
        "ucfTrainTestlist/testlist01.txt",
    )
    sources = SOURCES["UCF101"]
    templates = ("a photo of a person doing {}.",)

    def entries(self, path: Path) -> Iterator[tuple[str, str, str]]:
        """Yield the entries of a list with lines "YoYo/v_YoYo_g01_c01.avi 101"."""
        source = self.split_sources[0]
        labels = {name: label for label, name in read_rows(self.directory / source, columns=2)}
        for (line,) in read_rows(path):
            action, _, video = line.split()[0].partition("/")
            words = "_".join(re.findall("[A-Z][^A-Z]*", action))  # "Apply_Eye_Makeup"
            image = f"{words}/{video.replace('.avi', '.jpg')}"
            yield image, lookup(labels, action, path, source), words
