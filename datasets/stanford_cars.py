"""Stanford Cars: makes and models (Krause et al., ICCV workshop 2013)."""

from dassl.data.datasets import DATASET_REGISTRY, SplitDataset


@DATASET_REGISTRY.register()
class StanfordCars(SplitDataset):
    """Read from CoOp's split file."""

    dataset_dir = "stanford_cars"
    image_dir = "."
    split_file = "split_zhou_StanfordCars.json"
