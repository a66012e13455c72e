"""Oxford Flowers 102 (Nilsback and Zisserman, ICVGIP 2008).

102 classes; 4,093 training, 1,633 validation and 2,463 test images.
"""

from dassl.data.datasets import (
    DATASET_REGISTRY,
    Split,
    SplitDataset,
    lookup,
    read_items,
    read_mat,
    split_all,
)
from datasets.sources import SOURCES
from safeio.errors import UserError
from safeio.files import read_json

LABELS = "imagelabels.mat"
NAMES = "cat_to_name.json"


@DATASET_REGISTRY.register()
class OxfordFlowers(SplitDataset):
    """CoOp's split file, or the images of each label split 50 / 20 / 30."""

    dataset_dir = "oxford_flowers"
    image_dir = "jpg"
    split_file = "split_zhou_OxfordFlowers.json"
    split_sources = (LABELS, NAMES)
    sources = SOURCES["OxfordFlowers"]
    templates = ("a photo of a {}, a type of flower.",)

    def make_split(self) -> Split:
        """Split the images of each label; image_00001.jpg has the first label, counted from 1."""
        path = self.directory / NAMES
        try:
            names = dict(read_json(path))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} is not a JSON file of class names by label") from error
        labels = self.directory / LABELS
        entries = (
            (f"image_{number:05d}.jpg", label, lookup(names, str(label), labels, path))
            for number, label in enumerate(read_mat(labels, "labels"), 1)
        )
        return split_all(read_items(entries, self.images, labels, first_label=1))
