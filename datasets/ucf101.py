"""UCF101: the middle frames of videos of actions (Soomro et al., 2012)."""

from dassl.data.datasets import DATASET_REGISTRY, SplitDataset


@DATASET_REGISTRY.register()
class UCF101(SplitDataset):
    """Read from CoOp's split file."""

    dataset_dir = "ucf101"
    image_dir = "UCF-101-midframes"
    split_file = "split_zhou_UCF101.json"
    templates = ("a photo of a person doing {}.",)
