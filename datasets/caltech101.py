"""Caltech-101: object recognition (Fei-Fei et al., CVPR workshop 2004).

100 classes (without the background and the easy faces); 4,128 training, 1,649 validation and 2,465
test images.
"""

from dassl.data.datasets import DATASET_REGISTRY, Split, SplitDataset, folder_items, split_all
from datasets.sources import SOURCES

IGNORED = ("BACKGROUND_Google", "Faces_easy")
RENAMED = {
    "airplanes": "airplane",
    "Faces": "face",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
}


@DATASET_REGISTRY.register()
class Caltech101(SplitDataset):
    """CoOp's split file, or the class folders cut 50 / 20 / 30."""

    dataset_dir = "caltech-101"
    image_dir = "101_ObjectCategories"
    split_file = "split_zhou_Caltech101.json"
    sources = SOURCES["Caltech101"]

    def make_split(self) -> Split:
        """Cut the images of each class folder."""
        return split_all(folder_items(self.images, RENAMED, IGNORED))
