"""Oxford-IIIT Pet: breeds of cats and dogs (Parkhi et al., CVPR 2012).

37 classes; 2,944 training, 736 validation and 3,669 test images.
"""

from collections.abc import Iterator
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, read_rows
from datasets.published import PublishedLists
from datasets.sources import SOURCES

TRAINVAL = "annotations/trainval.txt"
TEST = "annotations/test.txt"


@DATASET_REGISTRY.register()
class OxfordPets(PublishedLists):
    """CoOp's split file, or the published lists with 20% of trainval for validation."""

    dataset_dir = "oxford_pets"
    image_dir = "images"
    split_file = "split_zhou_OxfordPets.json"
    split_sources = (TRAINVAL, TEST)
    sources = SOURCES["OxfordPets"]
    templates = ("a photo of a {}, a type of pet.",)

    def entries(self, path: Path) -> Iterator[tuple[str, str, str]]:
        """Yield the entries of a list with lines "Abyssinian_100 1 1 1"."""
        for image, label in read_rows(path, columns=2):
            yield f"{image}.jpg", label.split()[0], image.rpartition("_")[0].lower()
