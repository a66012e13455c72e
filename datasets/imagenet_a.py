"""ImageNet-A: natural adversarial examples (Hendrycks et al., CVPR 2021).

200 of ImageNet's classes; 7,500 test images.
"""

from dassl.data.datasets import DATASET_REGISTRY
from datasets.imagenet import ImageNetSubset
from datasets.sources import SOURCES


@DATASET_REGISTRY.register()
class ImageNetA(ImageNetSubset):
    """One folder for each WordNet id; files next to the folders are ignored."""

    dataset_dir = "imagenet-adversarial"
    image_dir = "imagenet-a"
    sources = SOURCES["ImageNetA"]
