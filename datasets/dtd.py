"""Describable Textures (Cimpoi et al., CVPR 2014)."""

from dassl.data.datasets import DATASET_REGISTRY, SplitDataset


@DATASET_REGISTRY.register()
class DescribableTextures(SplitDataset):
    """Read from CoOp's split file."""

    dataset_dir = "dtd"
    image_dir = "images"
    split_file = "split_zhou_DescribableTextures.json"
    templates = ("{} texture.",)
