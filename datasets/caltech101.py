"""Caltech-101: object recognition (Fei-Fei et al., CVPR workshop 2004).

100 classes (without the background and the easy faces); 4,128 training, 1,649 validation and 2,465
test images.
"""

from dassl.data.datasets import DATASET_REGISTRY
from datasets.published import ClassFolders
from datasets.sources import SOURCES


@DATASET_REGISTRY.register()
class Caltech101(ClassFolders):
    """CoOp's split file, or the class folders split 50 / 20 / 30."""

    dataset_dir = "caltech-101"
    image_dir = "101_ObjectCategories"
    split_file = "split_zhou_Caltech101.json"
    sources = SOURCES["Caltech101"]
    renamed = {
        "airplanes": "airplane",
        "Faces": "face",
        "Leopards": "leopard",
        "Motorbikes": "motorbike",
    }
    ignored = ("BACKGROUND_Google", "Faces_easy")
