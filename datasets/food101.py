"""Food-101: dishes (Bossard et al., ECCV 2014).

101 classes; 50,500 training, 20,200 validation and 30,300 test images.
"""

from dassl.data.datasets import DATASET_REGISTRY
from datasets.published import ClassFolders
from datasets.sources import SOURCES


@DATASET_REGISTRY.register()
class Food101(ClassFolders):
    """CoOp's split file, or the class folders split 50 / 20 / 30."""

    dataset_dir = "food-101"
    image_dir = "images"
    split_file = "split_zhou_Food101.json"
    sources = SOURCES["Food101"]
    templates = ("a photo of {}, a type of food.",)
