"""SUN397: scenes (Xiao et al., CVPR 2010)."""

from dassl.data.datasets import DATASET_REGISTRY, SplitDataset


@DATASET_REGISTRY.register()
class SUN397(SplitDataset):
    """Read from CoOp's split file."""

    dataset_dir = "sun397"
    image_dir = "SUN397"
    split_file = "split_zhou_SUN397.json"
