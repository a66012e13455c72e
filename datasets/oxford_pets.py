"""Oxford-IIIT Pet: breeds of cats and dogs (Parkhi et al., CVPR 2012)."""

from dassl.data.datasets import DATASET_REGISTRY, SplitDataset


@DATASET_REGISTRY.register()
class OxfordPets(SplitDataset):
    """Read from CoOp's split file."""

    dataset_dir = "oxford_pets"
    image_dir = "images"
    split_file = "split_zhou_OxfordPets.json"
    templates = ("a photo of a {}, a type of pet.",)
