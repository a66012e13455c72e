"""UCF101: the middle frames of videos of actions (Soomro et al., 2012).

101 classes; 7,639 training, 1,898 validation and 3,783 test images (the first of three splits).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, lookup, read_rows
from datasets.published import PublishedLists
from datasets.sources import SOURCES

NAMES = "ucfTrainTestlist/classInd.txt"
TRAINVAL = "ucfTrainTestlist/trainlist01.txt"
TEST = "ucfTrainTestlist/testlist01.txt"


@DATASET_REGISTRY.register()
class UCF101(PublishedLists):
    """CoOp's split file, or the published lists with 20% of the training list for validation."""

    dataset_dir = "ucf101"
    image_dir = "UCF-101-midframes"
    split_file = "split_zhou_UCF101.json"
    split_sources = (NAMES, TRAINVAL, TEST)
    sources = SOURCES["UCF101"]
    templates = ("a photo of a person doing {}.",)

    def entries(self, path: Path) -> Iterator[tuple[str, str, str]]:
        """Yield the entries of a list with lines "YoYo/v_YoYo_g01_c01.avi 101"."""
        labels = {name: label for label, name in read_rows(self.directory / NAMES, columns=2)}
        for (line,) in read_rows(path):
            action, _, video = line.split()[0].partition("/")
            words = action_name(action)
            image = f"{words}/{video.replace('.avi', '.jpg')}"
            yield image, lookup(labels, action, path, NAMES), words


def action_name(action: str) -> str:
    """Separate the words of a name in CamelCase.

    >>> action_name("ApplyEyeMakeup")
    'Apply_Eye_Makeup'
    """
    return "_".join(re.findall("[A-Z][^A-Z]*", action))
