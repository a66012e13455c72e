"""ImageNet-Sketch: black and white sketches (Wang et al., NeurIPS 2019).

1,000 classes; 50,889 test images.
"""

from dassl.data.datasets import DATASET_REGISTRY
from datasets.imagenet import ImageNetVariant
from datasets.sources import SOURCES


@DATASET_REGISTRY.register()
class ImageNetSketch(ImageNetVariant):
    """One folder for each WordNet id; files next to the folders are ignored."""

    dataset_dir = "imagenet-sketch"
    image_dir = "images"
    sources = SOURCES["ImageNetSketch"]
