"""Describable Textures (Cimpoi et al., CVPR 2014).

47 classes; 2,820 training, 1,128 validation and 1,692 test images.
"""

from dassl.data.datasets import DATASET_REGISTRY
from datasets.published import ClassFolders
from datasets.sources import SOURCES


@DATASET_REGISTRY.register()
class DescribableTextures(ClassFolders):
    """CoOp's split file, or the class folders split 50 / 20 / 30."""

    dataset_dir = "dtd"
    image_dir = "images"
    split_file = "split_zhou_DescribableTextures.json"
    sources = SOURCES["DescribableTextures"]
    templates = ("{} texture.",)
