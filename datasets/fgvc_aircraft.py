"""FGVC-Aircraft: variants of aircraft (Maji et al., 2013).

100 classes; 3,334 training, 3,333 validation and 3,333 test images.
"""

from dassl.data.datasets import DATASET_REGISTRY, Split, SplitDataset, lookup, read_items, read_rows
from datasets.sources import SOURCES

NAMES = "variants.txt"


@DATASET_REGISTRY.register()
class FGVCAircraft(SplitDataset):
    """The published lists; the order in variants.txt determines the labels."""

    dataset_dir = "fgvc_aircraft"
    split_sources = (
        NAMES,
        "images_variant_train.txt",
        "images_variant_val.txt",
        "images_variant_test.txt",
    )
    sources = SOURCES["FGVCAircraft"]
    templates = ("a photo of a {}, a type of aircraft.",)

    def make_split(self) -> Split:
        """Read the lists with lines "1025794 Boeing 707-320"."""
        labels = {row[0]: label for label, row in enumerate(read_rows(self.directory / NAMES))}
        split = {}
        for part in ("train", "val", "test"):
            path = self.directory / f"images_variant_{part}.txt"
            entries = (
                (f"{image}.jpg", lookup(labels, variant, path, NAMES), variant)
                for image, variant in read_rows(path, columns=2)
            )
            split[part] = read_items(entries, self.images, path)
        return split
