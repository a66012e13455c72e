"""Oxford-IIIT Pet: breeds of cats and dogs (Parkhi et al., CVPR 2012).

37 classes; 2,944 training, 736 validation and 3,669 test images.
"""

from dassl.data.datasets import (
    DATASET_REGISTRY,
    Datum,
    Split,
    SplitDataset,
    read_items,
    read_rows,
    split_lists,
)
from datasets.sources import SOURCES

TRAINVAL = "annotations/trainval.txt"
TEST = "annotations/test.txt"


@DATASET_REGISTRY.register()
class OxfordPets(SplitDataset):
    """CoOp's split file, or the published lists with 20% of trainval for validation."""

    dataset_dir = "oxford_pets"
    image_dir = "images"
    split_file = "split_zhou_OxfordPets.json"
    split_sources = (TRAINVAL, TEST)
    sources = SOURCES["OxfordPets"]
    templates = ("a photo of a {}, a type of pet.",)

    def make_split(self) -> Split:
        """Cut the validation part off the published lists: "Abyssinian_100 1 1 1" a line."""
        return split_lists(self._read(TRAINVAL), self._read(TEST))

    def _read(self, name: str) -> list[Datum]:
        path = self.directory / name
        entries = (
            (f"{image}.jpg", label.split()[0], image.rpartition("_")[0].lower())
            for image, label in read_rows(path, columns=2)
        )
        return read_items(entries, self.images, path, first_label=1)
