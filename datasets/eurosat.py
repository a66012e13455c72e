"""EuroSAT: land use seen by satellites (Helber et al., JSTARS 2019).

10 classes; 13,500 training, 5,400 validation and 8,100 test images.
"""

from dassl.data.datasets import DATASET_REGISTRY
from datasets.published import ClassFolders
from datasets.sources import SOURCES


@DATASET_REGISTRY.register()
class EuroSAT(ClassFolders):
    """CoOp's split file, or the class folders split 50 / 20 / 30."""

    dataset_dir = "eurosat"
    image_dir = "2750"
    split_file = "split_zhou_EuroSAT.json"
    sources = SOURCES["EuroSAT"]
    templates = ("a centered satellite photo of {}.",)
    renamed = {
        "AnnualCrop": "Annual Crop Land",
        "Forest": "Forest",
        "HerbaceousVegetation": "Herbaceous Vegetation Land",
        "Highway": "Highway or Road",
        "Industrial": "Industrial Buildings",
        "Pasture": "Pasture Land",
        "PermanentCrop": "Permanent Crop Land",
        "Residential": "Residential Buildings",
        "River": "River",
        "SeaLake": "Sea or Lake",
    }
