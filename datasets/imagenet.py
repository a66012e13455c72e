"""ImageNet in CoOp's layout, and its variants, which are test images for models trained on it.

The class names were curated by CLIP's authors; a list `classnames.txt` with lines
"n01440764 tench" in the dataset's folder overrides them. Files next to the class folders are
ignored.
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
    """ImageNet (Deng et al., CVPR 2009): images/{train,val}/<WordNet id>/*.JPEG.

    1,000 classes; 1,281,167 training images. As usual, the 50,000 validation images are the test
    images, and there are no others for validation. The order of the ids determines the labels.
    """

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
    """Test images only, of all 1000 classes."""

    def make_split(self) -> Split:
        """Return test images only."""
        return {"train": [], "val": [], "test": self.test_items()}

    def test_items(self) -> list[Datum]:
        """Return the images of all 1000 classes, whose folders are WordNet ids."""
        return class_items(self.images, self.list_part(), self.classes())


class ImageNetSubset(ImageNetVariant):
    """Some of the classes; as in CoOp, the classifier has only these, with labels from 0."""

    def test_items(self) -> list[Datum]:
        """Return the images of the classes that have a folder."""
        listing = self.list_part()
        known = {wnid: name for wnid, name in self.classes().items() if wnid in listing}
        return class_items(self.images, listing, known)


@DATASET_REGISTRY.register()
class ImageNetA(ImageNetSubset):
    """Natural adversarial examples (Hendrycks et al., CVPR 2021): 200 classes, 7,500 images."""

    dataset_dir = "imagenet-adversarial"
    image_dir = "imagenet-a"
    sources = SOURCES["ImageNetA"]


@DATASET_REGISTRY.register()
class ImageNetR(ImageNetSubset):
    """Renditions, such as art (Hendrycks et al., ICCV 2021): 200 classes, 30,000 images."""

    dataset_dir = "imagenet-rendition"
    image_dir = "imagenet-r"
    sources = SOURCES["ImageNetR"]


@DATASET_REGISTRY.register()
class ImageNetSketch(ImageNetVariant):
    """Black and white sketches (Wang et al., NeurIPS 2019): 50,889 images."""

    dataset_dir = "imagenet-sketch"
    sources = SOURCES["ImageNetSketch"]


@DATASET_REGISTRY.register()
class ImageNetV2(ImageNetVariant):
    """New test images, matched frequency (Recht et al., ICML 2019): 10,000, in folders 0 to 999."""

    dataset_dir = "imagenetv2"
    image_dir = "imagenetv2-matched-frequency-format-val"
    sources = SOURCES["ImageNetV2"]

    def test_items(self) -> list[Datum]:
        """Return the images; the name of their folder is the label."""
        names = {str(label): name for label, name in enumerate(self.classes().values())}
        return class_items(self.images, self.list_part(), names)
