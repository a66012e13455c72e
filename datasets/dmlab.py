"""DMLab: frames of a simulated maze (Zhai et al., VTAB, 2019; Beattie et al., 2016).

6 classes: close, far and very far objects, with positive or negative reward; 65,550 training,
22,628 validation and 22,735 test images.
"""

from dassl.data.datasets import DATASET_REGISTRY, Split, SplitDataset, folder_items
from datasets.sources import SOURCES


@DATASET_REGISTRY.register()
class DMLab(SplitDataset):
    """VTAB's parts in class folders train/0 to test/5, as TensorFlow Datasets numbers them.

    Which number is which class is not published with the data, so text prompts mean nothing here.
    """

    dataset_dir = "dmlab"
    image_dir = "."
    sources = SOURCES["DMLab"]
    naming_advice = ", since DMLab's labels have no names"

    def make_split(self) -> Split:
        """Return the images of each part's folder."""
        parts = ("train", "val", "test")
        return {part: folder_items(self.images / part) for part in parts}
