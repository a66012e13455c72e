"""Food-101: dishes (Bossard et al., ECCV 2014)."""

from dassl.data.datasets import DATASET_REGISTRY, SplitDataset


@DATASET_REGISTRY.register()
class Food101(SplitDataset):
    """Read from CoOp's split file."""

    dataset_dir = "food-101"
    image_dir = "images"
    split_file = "split_zhou_Food101.json"
    templates = ("a photo of {}, a type of food.",)
