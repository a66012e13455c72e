"""ImageNet (Deng et al., CVPR 2009) in CoOp's layout: images/{train,val}/<wordnet id>/*.JPEG.

1,000 classes; 1,281,167 training images and 50,000 validation images. The latter are the test, as
in the field; there is no validation part. Class names are those that CLIP's authors curated; a list
`classnames.txt` in the dataset's folder, "n01440764 tench" a line, replaces the shipped one.
"""

from pathlib import Path

from dassl.data.datasets import (
    DATASET_REGISTRY,
    Datum,
    Split,
    SplitDataset,
    class_items,
    list_images,
    read_rows,
)
from datasets.sources import SOURCES

CLASSNAMES = Path(__file__).parent / "imagenet_classnames.txt"


def read_classnames(path: Path) -> dict[str, str]:
    """Wordnet id -> class name, in the order of ImageNet's labels: that of the sorted ids.

    Raises:
        UserError: the file cannot be read.
    """
    return dict(sorted((wnid, name) for wnid, name in read_rows(path, columns=2)))


def imagenet_classnames() -> list[str]:
    """The 1000 class names that CLIP's authors curated, in the order of ImageNet's labels.

    From OpenAI's CLIP notebooks, as open_clip ships them (`zero_shot_metadata`, MIT licence); the
    wordnet ids beside them are those of timm's list of ImageNet's synsets.
    """
    return list(read_classnames(CLASSNAMES).values())


class ImageNetFolders(SplitDataset):
    """What ImageNet and its variants share: the class names, and listings that are kept."""

    def classes(self) -> dict[str, str]:
        """Wordnet id -> class name, of the dataset's own list or else of the shipped one."""
        own = self.directory / "classnames.txt"
        return read_classnames(own if own.is_file() else CLASSNAMES)

    def list_part(self, part: str = "") -> dict[str, list[str]]:
        """Class folder -> image names, of a folder of images."""
        keep = self.directory / f"listing{part and f'_{part}'}.json.gz"
        return list_images(self.images / part, keep)


@DATASET_REGISTRY.register()
class ImageNet(ImageNetFolders):
    """Lists the folders; labels follow the sorted wordnet ids."""

    dataset_dir = "imagenet"
    sources = SOURCES["ImageNet"]

    def make_split(self) -> Split:
        """Train and test images; no validation part."""
        train, test = (
            class_items(self.images / part, self.list_part(part), self.classes())
            for part in ("train", "val")
        )
        return {"train": train, "val": [], "test": test}


class ImageNetVariant(ImageNetFolders):
    """Images to test what was learned on ImageNet; there are none to train on."""

    def make_split(self) -> Split:
        """A test part alone."""
        return {"train": [], "val": [], "test": self.test_items()}

    def test_items(self) -> list[Datum]:
        """The images of all 1000 classes, in folders that are wordnet ids."""
        return class_items(self.images, self.list_part(), self.classes())


class ImageNetSubset(ImageNetVariant):
    """A variant with images of some of ImageNet's classes, whose labels count from 0.

    As in CoOp, the classifier has these classes alone.
    """

    def test_items(self) -> list[Datum]:
        """The images of the classes that have a folder."""
        listing = self.list_part()
        known = {wnid: name for wnid, name in self.classes().items() if wnid in listing}
        return class_items(self.images, listing, known)
