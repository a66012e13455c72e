"""SUN397: scenes (Xiao et al., CVPR 2010).

397 classes; 15,880 training, 3,970 validation and 19,850 test images (the first of ten partitions).
"""

from collections.abc import Iterator
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, lookup, read_rows
from datasets.published import PublishedLists
from datasets.sources import SOURCES

NAMES = "ClassName.txt"
TRAINVAL = "Training_01.txt"
TEST = "Testing_01.txt"


@DATASET_REGISTRY.register()
class SUN397(PublishedLists):
    """CoOp's split file, or the published lists with 20% of the training list for validation."""

    dataset_dir = "sun397"
    image_dir = "SUN397"
    split_file = "split_zhou_SUN397.json"
    split_sources = (NAMES, TRAINVAL, TEST)
    sources = SOURCES["SUN397"]
    first_label = 0

    def entries(self, path: Path) -> Iterator[tuple[str, int, str]]:
        """Yield the entries of a list with lines "/a/abbey/sun_x.jpg"."""
        folders = [row[0] for row in read_rows(self.directory / NAMES)]
        labels = {folder: label for label, folder in enumerate(folders)}
        for (image,) in read_rows(path):
            folder = image.rpartition("/")[0]
            label = lookup(labels, folder, path, NAMES)
            yield image.removeprefix("/"), label, scene_name(folder)


def scene_name(folder: str) -> str:
    """Return the words of a folder in reverse order, without the initial letter.

    >>> scene_name("/c/church/indoor")
    'indoor church'
    """
    return " ".join(reversed(folder.removeprefix("/").split("/")[1:]))
