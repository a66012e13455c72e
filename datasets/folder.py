"""The user's own images: class folders, or a CSV of paths and labels, at DATASET.FOLDER.PATH.

    PATH/train/<class>/...  PATH/test/<class>/...   and, optionally, PATH/val/<class>/...
    PATH/<class>/...                     split automatically, saved in PATH/split_Folder.json
    PATH.csv with path,label             split automatically, saved in split_<its name>.json
    PATH.csv with path,label,split       split is train, val or test

Other spellings of the parts are accepted, and all parts may be nested in further folders
(`part_folders`), as may the images of a class. The name of a class folder is the class name, unless
a classnames.txt next to the classes, the parts or the CSV overrides it. Few-shot samples are saved
in split_fewshot/ next to the split.
"""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from dassl.config import Config, declare_config
from dassl.data.datasets import DATASET_REGISTRY, Datum, SplitDataset
from dassl.data.datasets.class_checks import sort_classes
from dassl.data.datasets.splits import PARTS, Split, split_all
from dassl.data.image_kinds import SUFFIXES
from safeio.errors import UserError

from .own_images import ALL, Table, read_folders, read_table

declare_config("DATASET.FOLDER", {"PATH": ""})  # absolute, or relative to DATASET.ROOT

NAMES_FILE = "classnames.txt"


@DATASET_REGISTRY.register()
class Folder(SplitDataset):
    """Images in the layouts above; `sort_classes` determines the order of the labels.

    A saved split does not change: new images are not in it until its file is deleted. Images in
    separate parts are listed in every run.
    """

    image_dir = "."
    decode = "as_viewed"

    def __init__(self, cfg: Config) -> None:
        """Load the images.

        Raises:
            UserError: the path is empty, or its content has a wrong layout.
        """
        path = Path(cfg.DATASET.FOLDER.PATH).expanduser()
        if not cfg.DATASET.FOLDER.PATH:
            raise UserError(
                "DATASET.FOLDER.PATH is empty; set it to the folder of your images or to a .csv, "
                "absolute or relative to the data root"
            )
        self.csv = path.name if path.suffix.lower() == ".csv" else ""
        self.dataset_dir = str(path.parent if self.csv else path)
        super().__init__(cfg)

    def check_folders(self) -> None:
        """Make sure that the folder or the CSV exists.

        Raises:
            UserError: it does not exist.
        """
        path = self.directory / self.csv
        if not (path.is_file() if self.csv else path.is_dir()):
            raise UserError(
                f"DATASET.FOLDER.PATH: {path} is not a {'file' if self.csv else 'folder'}; set it "
                "to a folder of images or a .csv, absolute or relative to the data root (--root)"
            )

    def load_split(self) -> Split:
        """List the images; without separate parts, split them once and save the split.

        Raises:
            UserError: the folders, the names or the CSV are wrong.
        """
        source = self.directory / self.csv
        if self.csv:
            top, table = self.directory, read_table(source)
        else:
            top, table = read_folders(source)
        self._check_parts(table, source)
        files = (top / NAMES_FILE, self.directory / NAMES_FILE)
        names_file = next(filter(Path.is_file, files), None)
        self.listed = to_items(table, source, names_file)
        self.naming_advice = (
            f"; write their names into {top / NAMES_FILE}, a line for each with the number, a "
            'space and the name, such as "0 cat"'
        )
        if ALL not in table:
            split = {part: self.listed.get(part, []) for part in PARTS}
            self.check_labels(split, source)
            return split
        self.split_file = f"split_{source.stem if self.csv else type(self).__name__}.json"
        self.naming_advice += f", and delete {self.split_file}, which contains the numbers"
        path = self.directory / self.split_file
        existed = path.is_file()
        try:
            split = super().load_split()
        except UserError as error:
            advice = f"; delete {path} to split the images again" if existed else ""
            raise UserError(f"{error}{advice}") from error
        self._report_changes([item for part in PARTS for item in split[part]])
        return split

    def make_split(self) -> Split:
        """Split the images randomly; see `split_all`.

        Raises:
            UserError: a class has fewer than four images.
        """
        try:
            return split_all(self.listed[ALL])
        except UserError as error:
            raise UserError(
                f"{error}; add images (at least four), or split the images yourself (train/, val/ "
                "and test/ folders, or a CSV with a split column)"
            ) from error

    def _check_parts(self, table: Table, source: Path) -> None:
        if ALL in table:
            if source == self.root:
                raise UserError(
                    f"DATASET.FOLDER.PATH is the data root {self.root} itself, where features are "
                    "cached next to the datasets; set the data root (--root) to its parent folder"
                )
            return
        test, present = self.cfg.TEST, [part for part in table if any(table[part].values())]
        tested = test.NO_TEST or "test" in present or (test.SPLIT == "val" and "val" in present)
        if "train" not in present or not tested:
            use_val = "TEST.SPLIT val to test on val, or " if "val" in present else ""
            raise UserError(
                f"{source} has images for {', '.join(present) or 'no part'}, but needs train and "
                "test (val is optional), each with one folder of images a class; without test, set "
                f"{use_val}TEST.NO_TEST True"
            )

    def _report_changes(self, saved: Sequence[Datum]) -> None:
        """Print how the saved split differs from the images that are listed now."""
        # A saved split may number the classes differently, so labels are not compared.
        before, now = (
            {(item.impath, item.classname) for item in items} for items in (saved, self.listed[ALL])
        )
        if before != now:
            print(
                f"{self.directory / self.split_file} is used unchanged, although "
                f"{len(now - before)} of the listed images are not in it and "
                f"{len(before - now)} of its images are not listed (or have another class); "
                "delete it to split again"
            )


def to_items(table: Table, source: Path, names_file: Path | None) -> Split:
    """Convert paths and class names to labelled images; the first part has all classes.

    Raises:
        UserError: there are no classes, a class has no images or is missing in training, or two
            classes have the same name.
    """
    first = next(iter(table), ALL)
    try:
        classes = sort_classes(table.get(first, {}))
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    if not classes:
        raise UserError(f"{source} has no classes: no folders of images, or no rows of a CSV")
    for part, groups in table.items():
        for name, paths in groups.items():
            if name not in table[first]:
                raise UserError(f'{source}: the class "{name}" of {part} is not in {first}')
            if not paths and part == first:
                raise UserError(
                    f'{source}: the class "{name}" has no images; add some or remove it '
                    f"(accepted: {' '.join(SUFFIXES)})"
                )
    names = read_classnames(names_file, classes) if names_file else {key: key for key in classes}
    check_distinct(names, source)
    return {
        part: [
            Datum(path, label, classname=names[key])
            for label, key in enumerate(classes)
            for path in groups.get(key, ())
        ]
        for part, groups in table.items()
    }


def check_distinct(names: dict[str, str], source: Path) -> None:
    """Make sure that no two class names differ only in case and underscores, which CLIP ignores.

    Raises:
        UserError: two names do.
    """
    seen: dict[str, str] = {}
    for key, name in names.items():
        text = name.replace("_", " ").lower().strip()
        if text in seen:
            raise UserError(
                f'{source}: the classes "{seen[text]}" and "{key}" have the same name "{text}" to '
                f"CLIP; rename one, in {NAMES_FILE} for class folders"
            )
        seen[text] = key


def read_classnames(path: Path, classes: Sequence[str]) -> dict[str, str]:
    """Return class folder (or label of a CSV) -> class name.

    A line is a folder's name (a label), a tab or the first space, and the class name; each folder
    has one line. Blank lines are ignored.

    Raises:
        UserError: a line has another form, is repeated for a folder or missing, or has no folder.
    """
    names: dict[str, str] = {}
    for line in filter(None, map(str.strip, _read_lines(path))):
        folder, _, name = line.partition("\t" if "\t" in line else " ")
        if not name.strip() or folder in names or folder not in classes:
            raise UserError(
                f'{path}: the line "{line}" is not a class folder (or a label of the CSV), a space '
                "or tab, and its class name, once for each"
            )
        names[folder] = name.strip()
    missing = [name for name in classes if name not in names]
    if missing:
        raise UserError(f'{path} has no line for the class folder "{missing[0]}"')
    return {name: names[name] for name in classes}


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text: {error}") from error
    return unicodedata.normalize("NFC", text).splitlines()
