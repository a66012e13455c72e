"""ImageNet (Deng et al., CVPR 2009) in CoOp's layout: images/{train,val}/<wordnet id>/*.JPEG.

Class names are those that CLIP's authors curated: classnames.txt, "n01440764 tench" a line. The
validation images are the test, as in the field; there is no validation part.
"""

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, Datum, SplitDataset
from dassl.utils import UserError, listdir_nohidden

CLASSNAMES = Path(__file__).parent / "imagenet_classnames.txt"


def imagenet_classnames() -> list[str]:
    """The 1000 class names that CLIP's authors curated, in the order of ImageNet's labels.

    From OpenAI's CLIP notebooks, as open_clip ships them (`zero_shot_metadata`, MIT licence); the
    wordnet ids beside them are those of timm's list of ImageNet's synsets.
    """
    return list(ImageNet.read_classnames(CLASSNAMES).values())


@DATASET_REGISTRY.register()
class ImageNet(SplitDataset):
    """Lists the folders; labels follow the sorted wordnet ids."""

    dataset_dir = "imagenet"

    def make_split(self) -> dict[str, list[Datum]]:
        """Train and test images; no validation part."""
        names = self.read_classnames(self.directory / "classnames.txt")
        train, test = (self._list(part, names) for part in ("train", "val"))
        return {"train": train, "val": [], "test": test}

    @staticmethod
    def read_classnames(path: Path) -> dict[str, str]:
        """Wordnet id -> class name.

        Raises:
            UserError: the file is missing.
        """
        if not path.is_file():
            raise UserError(f"{path} is missing: one line per class, such as 'n01440764 tench'.")
        lines = path.read_text(encoding="utf-8").splitlines()
        pairs = (line.strip().split(" ", 1) for line in lines if " " in line.strip())
        return dict(sorted((wnid, name) for wnid, name in pairs))

    def _list(self, part: str, names: dict[str, str]) -> list[Datum]:
        folders = [self.images / part / wnid for wnid in names]
        missing = [folder for folder in folders if not folder.is_dir()]
        if missing:
            raise UserError(f"ImageNet: the folder {missing[0]} is missing.")
        return [
            Datum(str(folder / file), label, classname=names[folder.name])
            for label, folder in enumerate(folders)
            for file in listdir_nohidden(folder, sort=True)
        ]
