"""EuroSAT: land use seen by satellites (Helber et al., JSTARS 2019)."""

from dassl.data.datasets import DATASET_REGISTRY, SplitDataset


@DATASET_REGISTRY.register()
class EuroSAT(SplitDataset):
    """Read from CoOp's split file."""

    dataset_dir = "eurosat"
    image_dir = "2750"
    split_file = "split_zhou_EuroSAT.json"
    templates = ("a centered satellite photo of {}.",)
