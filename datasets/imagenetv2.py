"""ImageNetV2, matched frequency: new test images for ImageNet (Recht et al., ICML 2019).

1,000 classes; 10,000 test images.
"""

from dassl.data.datasets import DATASET_REGISTRY, Datum, class_items
from datasets.imagenet import ImageNetVariant
from datasets.sources import SOURCES


@DATASET_REGISTRY.register()
class ImageNetV2(ImageNetVariant):
    """One folder for each label, 0 to 999."""

    dataset_dir = "imagenetv2"
    image_dir = "imagenetv2-matched-frequency-format-val"
    sources = SOURCES["ImageNetV2"]

    def test_items(self) -> list[Datum]:
        """Return the images; the name of their folder is the label."""
        names = {str(label): name for label, name in enumerate(self.classes().values())}
        return class_items(self.images, self.list_part(), names)
