"""Stanford Cars: makes and models (Krause et al., ICCV workshop 2013).

196 classes; 6,509 training, 1,635 validation and 8,041 test images.
"""

from collections.abc import Iterator
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, lookup, read_mat
from datasets.published import PublishedLists
from datasets.sources import SOURCES

TRAINVAL = "devkit/cars_train_annos.mat"
TEST = "cars_test_annos_withlabels.mat"
NAMES = "devkit/cars_meta.mat"


@DATASET_REGISTRY.register()
class StanfordCars(PublishedLists):
    """CoOp's split file, or the published lists with 20% of cars_train for validation."""

    dataset_dir = "stanford_cars"
    image_dir = "."
    split_file = "split_zhou_StanfordCars.json"
    split_sources = (NAMES, TRAINVAL, TEST)
    sources = SOURCES["StanfordCars"]

    def entries(self, path: Path) -> Iterator[tuple[str, int, str]]:
        """Yield the annotations of the images in cars_train or cars_test."""
        folder = "cars_train" if path == self.directory / TRAINVAL else "cars_test"
        names = dict(enumerate(read_mat(self.directory / NAMES, "class_names"), 1))
        for image, label in read_mat(path, "annotations", ("fname", "class")):
            yield f"{folder}/{image}", label, year_first(lookup(names, label, path, NAMES))


def year_first(name: str) -> str:
    """Move the year to the front.

    >>> year_first("Audi S4 Sedan 2012")
    '2012 Audi S4 Sedan'
    """
    model, _, year = str(name).rpartition(" ")
    return f"{year} {model}"
