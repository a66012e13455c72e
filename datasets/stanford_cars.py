"""Stanford Cars: makes and models (Krause et al., ICCV workshop 2013).

196 classes; 6,509 training, 1,635 validation and 8,041 test images.
"""

from dassl.data.datasets import (
    DATASET_REGISTRY,
    Datum,
    Split,
    SplitDataset,
    lookup,
    read_items,
    read_mat,
    split_lists,
)
from datasets.sources import SOURCES

TRAINVAL = "devkit/cars_train_annos.mat"
TEST = "cars_test_annos_withlabels.mat"
NAMES = "devkit/cars_meta.mat"


@DATASET_REGISTRY.register()
class StanfordCars(SplitDataset):
    """CoOp's split file, or the published lists with 20% of cars_train for validation."""

    dataset_dir = "stanford_cars"
    image_dir = "."
    split_file = "split_zhou_StanfordCars.json"
    split_sources = (TRAINVAL, NAMES, TEST)
    sources = SOURCES["StanfordCars"]

    def make_split(self) -> Split:
        """Cut the validation part off the published training images."""
        cells = read_mat(self.directory / NAMES, "class_names")
        names = {label: year_first(name) for label, name in enumerate(cells, 1)}
        trainval = self._read("cars_train", TRAINVAL, names)
        return split_lists(trainval, self._read("cars_test", TEST, names))

    def _read(self, folder: str, file: str, names: dict[int, str]) -> list[Datum]:
        path = self.directory / file
        entries = (
            (f"{folder}/{image}", label, lookup(names, label, path, NAMES))
            for image, label in read_mat(path, "annotations", ("fname", "class"))
        )
        return read_items(entries, self.images, path, first_label=1)


def year_first(name: str) -> str:
    """Move the year to the front.

    >>> year_first("Audi S4 Sedan 2012")
    '2012 Audi S4 Sedan'
    """
    model, _, year = str(name).rpartition(" ")
    return f"{year} {model}"
