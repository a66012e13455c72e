"""Caltech-101: object recognition (Fei-Fei et al., CVPR workshop 2004)."""

from dassl.data.datasets import DATASET_REGISTRY, SplitDataset


@DATASET_REGISTRY.register()
class Caltech101(SplitDataset):
    """Read from CoOp's split file."""

    dataset_dir = "caltech-101"
    image_dir = "101_ObjectCategories"
    split_file = "split_zhou_Caltech101.json"
