"""ImageNet (Deng et al., CVPR 2009) in CoOp's layout: images/{train,val}/<wordnet id>/*.JPEG.

1,000 classes; 1,281,167 training images and 50,000 validation images. As usual, the latter are the
test images, and there are no others for validation. The class names were curated by CLIP's authors;
a list `classnames.txt` with lines "n01440764 tench" in the dataset's folder overrides them.
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
    """Return WordNet id -> class name in the order of ImageNet's labels, which is that of the ids.

    Raises:
        UserError: the file cannot be read.
    """
    return dict(sorted((wnid, name) for wnid, name in read_rows(path, columns=2)))


def imagenet_classnames() -> list[str]:
    """Return the 1000 class names curated by CLIP's authors, in the order of ImageNet's labels.

    The names are from OpenAI's CLIP notebooks, copied from open_clip (`zero_shot_metadata`, MIT
    licence), the WordNet ids from timm's list of ImageNet's synsets.
    """
    return list(read_classnames(CLASSNAMES).values())


class ImageNetFolders(SplitDataset):
    """Base of ImageNet and its variants: class names and cached listings."""

    def classes(self) -> dict[str, str]:
        """Return WordNet id -> class name, from the dataset's own list or the bundled one."""
        own = self.directory / "classnames.txt"
        return read_classnames(own if own.is_file() else CLASSNAMES)

    def list_part(self, part: str = "") -> dict[str, list[str]]:
        """Return class folder -> image names of a part's folder."""
        name = f"listing_{part}" if part else "listing"
        return list_images(self.images / part, self.directory / f"{name}.json.gz")


@DATASET_REGISTRY.register()
class ImageNet(ImageNetFolders):
    """ImageNet; the order of the WordNet ids determines the labels."""

    dataset_dir = "imagenet"
    sources = SOURCES["ImageNet"]

    def make_split(self) -> Split:
        """Return training and test images, without validation images."""
        train, test = (
            class_items(self.images / part, self.list_part(part), self.classes())
            for part in ("train", "val")
        )
        return {"train": train, "val": [], "test": test}


class ImageNetVariant(ImageNetFolders):
    """Test images for models that were trained on ImageNet."""

    def make_split(self) -> Split:
        """Return test images only."""
        return {"train": [], "val": [], "test": self.test_items()}

    def test_items(self) -> list[Datum]:
        """Return the images of all 1000 classes, whose folders are WordNet ids."""
        return class_items(self.images, self.list_part(), self.classes())


class ImageNetSubset(ImageNetVariant):
    """Variant with some of ImageNet's classes, whose labels start at 0.

    As in CoOp, the classifier has only these classes.
    """

    def test_items(self) -> list[Datum]:
        """Return the images of the classes that have a folder."""
        listing = self.list_part()
        known = {wnid: name for wnid, name in self.classes().items() if wnid in listing}
        return class_items(self.images, listing, known)
