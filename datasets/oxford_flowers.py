"""Oxford Flowers 102 (Nilsback and Zisserman, ICVGIP 2008)."""

from dassl.data.datasets import DATASET_REGISTRY, SplitDataset


@DATASET_REGISTRY.register()
class OxfordFlowers(SplitDataset):
    """Read from CoOp's split file."""

    dataset_dir = "oxford_flowers"
    image_dir = "jpg"
    split_file = "split_zhou_OxfordFlowers.json"
    templates = ("a photo of a {}, a type of flower.",)
