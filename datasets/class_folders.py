"""Datasets of class folders, which CoOp's split files divide into 50 / 20 / 30 percent."""

from collections.abc import Mapping

from dassl.data.datasets import DATASET_REGISTRY, Split, SplitDataset, folder_items, split_all
from datasets.sources import SOURCES


class ClassFolders(SplitDataset):
    """Base class: CoOp's split file, or the class folders split 50 / 20 / 30.

    Attributes:
        renamed: folder -> class name, if they differ.
        ignored: folders that are not classes.
    """

    renamed: Mapping[str, str] = {}
    ignored: tuple[str, ...] = ()

    def make_split(self) -> Split:
        """Split the images of each class folder."""
        return split_all(folder_items(self.images, self.renamed, self.ignored))


@DATASET_REGISTRY.register()
class Caltech101(ClassFolders):
    """Caltech-101: objects (Fei-Fei et al., CVPR workshop 2004).

    100 classes (without the background and the easy faces); 4,128 training, 1,649 validation and
    2,465 test images.
    """

    dataset_dir = "caltech-101"
    image_dir = "101_ObjectCategories"
    split_file = "split_zhou_Caltech101.json"
    sources = SOURCES["Caltech101"]
    renamed = {
        "airplanes": "airplane",
        "Faces": "face",
        "Leopards": "leopard",
        "Motorbikes": "motorbike",
    }
    ignored = ("BACKGROUND_Google", "Faces_easy")


@DATASET_REGISTRY.register()
class DescribableTextures(ClassFolders):
    """Describable Textures (Cimpoi et al., CVPR 2014).

    47 classes; 2,820 training, 1,128 validation and 1,692 test images.
    """

    dataset_dir = "dtd"
    split_file = "split_zhou_DescribableTextures.json"
    sources = SOURCES["DescribableTextures"]
    templates = ("{} texture.",)


@DATASET_REGISTRY.register()
class EuroSAT(ClassFolders):
    """EuroSAT: land use seen by satellites (Helber et al., JSTARS 2019).

    10 classes; 13,500 training, 5,400 validation and 8,100 test images.
    """

    dataset_dir = "eurosat"
    image_dir = "2750"
    split_file = "split_zhou_EuroSAT.json"
    sources = SOURCES["EuroSAT"]
    templates = ("a centered satellite photo of {}.",)
    renamed = {
        "AnnualCrop": "Annual Crop Land",
        "HerbaceousVegetation": "Herbaceous Vegetation Land",
        "Highway": "Highway or Road",
        "Industrial": "Industrial Buildings",
        "Pasture": "Pasture Land",
        "PermanentCrop": "Permanent Crop Land",
        "Residential": "Residential Buildings",
        "SeaLake": "Sea or Lake",
    }


@DATASET_REGISTRY.register()
class Food101(ClassFolders):
    """Food-101: dishes (Bossard et al., ECCV 2014).

    101 classes; 50,500 training, 20,200 validation and 30,300 test images.
    """

    dataset_dir = "food-101"
    split_file = "split_zhou_Food101.json"
    sources = SOURCES["Food101"]
    templates = ("a photo of {}, a type of food.",)
