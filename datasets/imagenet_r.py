"""ImageNet-R: renditions, such as art, toys and cartoons (Hendrycks et al., ICCV 2021).

200 of ImageNet's classes; 30,000 test images.
"""

from dassl.data.datasets import DATASET_REGISTRY
from datasets.imagenet import ImageNetSubset
from datasets.sources import SOURCES


@DATASET_REGISTRY.register()
class ImageNetR(ImageNetSubset):
    """One folder for each WordNet id; files next to the folders are ignored."""

    dataset_dir = "imagenet-rendition"
    image_dir = "imagenet-r"
    sources = SOURCES["ImageNetR"]
