"""Base classes for the two usual layouts of datasets: class folders, and two lists of images."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dassl.data.datasets import (
    Split,
    SplitDataset,
    folder_items,
    read_items,
    split_all,
    split_lists,
)


class ClassFolders(SplitDataset):
    """CoOp's split file, or the class folders split 50 / 20 / 30.

    Attributes:
        renamed: folder -> class name, if they differ.
        ignored: folders that are not classes.
    """

    renamed: Mapping[str, str] = {}
    ignored: tuple[str, ...] = ()

    def make_split(self) -> Split:
        """Split the images of each class folder."""
        return split_all(folder_items(self.images, self.renamed, self.ignored))


class PublishedLists(SplitDataset):
    """CoOp's split file, or the published lists with 20% of the first for validation.

    The last two `split_sources` are the lists for training and for the test.

    Attributes:
        first_label: label of the first class in the lists.
    """

    first_label = 1

    def make_split(self) -> Split:
        """Split the first list into training and validation images."""
        return split_lists(
            *(self._items(self.directory / name) for name in self.split_sources[-2:])
        )

    def _items(self, path: Path) -> list[Any]:
        return read_items(self.entries(path), self.images, path, self.first_label)

    def entries(self, path: Path) -> Iterable[tuple[str, Any, str]]:
        """Hook: yield path, label and class name of each image of a list."""
        raise NotImplementedError
