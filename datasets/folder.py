"""Your own images: class folders, or a CSV of paths and labels, under DATASET.FOLDER.PATH.

    PATH/train/<class>/...  PATH/test/<class>/...   and PATH/val/<class>/... if you like
    PATH/<class>/...                     split for you, kept in PATH/split_Folder.json
    PATH.csv with path,label             split for you, kept in split_<its name>.json beside it
    PATH.csv with path,label,split       split is train, val or test

Parts may be spelled in another way, and all of it may lie in one more folder or several
(`part_folders`). A class folder's images may lie in further folders inside; its name is the class
name, unless a classnames.txt beside the classes, the parts or the CSV says otherwise. Few-shot
items are kept in split_fewshot/ beside the split.
"""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from dassl.config import Config, declare_config
from dassl.data.datasets import DATASET_REGISTRY, Datum, SplitDataset
from dassl.data.datasets.class_checks import in_order
from dassl.data.datasets.splits import PARTS, Split, split_all
from dassl.data.image_kinds import SUFFIXES
from safeio.errors import UserError

from .own_images import ALL, Table, read_folders, read_table

declare_config("DATASET.FOLDER", {"PATH": ""})  # absolute, or relative to DATASET.ROOT

NAMES_FILE = "classnames.txt"


@DATASET_REGISTRY.register()
class Folder(SplitDataset):
    """Images in the layouts above; classes are in the order of their folders' (or labels') names.

    Names that are all numbers are in the order of their values.

    A split that was made for you never changes: later images are not in it until its file is
    deleted. Images that were given with their part are listed anew in every run.
    """

    image_dir = "."
    decode = "as_viewed"

    def __init__(self, cfg: Config) -> None:
        """Load the images.

        Raises:
            UserError: the path is not given, or what is there is not what it should be.
        """
        given = Path(cfg.DATASET.FOLDER.PATH).expanduser()
        if not cfg.DATASET.FOLDER.PATH:
            raise UserError(
                "DATASET.FOLDER.PATH is empty; set it to the folder of your images or to a .csv, "
                "absolute or relative to the data root"
            )
        self.csv = given.name if given.suffix.lower() == ".csv" else ""
        self.dataset_dir = str(given.parent if self.csv else given)
        super().__init__(cfg)

    def check_folders(self) -> None:
        """Make sure that the folder or the CSV is there.

        Raises:
            UserError: it is not.
        """
        path = self.directory / self.csv
        if not (path.is_file() if self.csv else path.is_dir()):
            raise UserError(
                f"DATASET.FOLDER.PATH: {path} is no {'file' if self.csv else 'folder'}; it takes "
                "a folder of images or a .csv, absolute or relative to the data root (--root)"
            )

    def load_split(self) -> Split:
        """List the images; where their parts are not given, split them once for all.

        Raises:
            UserError: what is wrong with the folders, the names or the CSV.
        """
        source = self.directory / self.csv
        if self.csv:
            meant, table = self.directory, read_table(source)
        else:
            meant, table = read_folders(source)
        self._check_parts(table, source)
        files = (meant / NAMES_FILE, self.directory / NAMES_FILE)
        names_file = next(filter(Path.is_file, files), None)
        self.listed = to_items(table, source, names_file)
        self.naming_advice = (
            f"; write what they are into {meant / NAMES_FILE}, a line for each with the number, a "
            'space and the name, such as "0 cat"'
        )
        if ALL not in table:
            split = {part: self.listed.get(part, []) for part in PARTS}
            self.check_labels(split, source)
            return split
        self.split_file = f"split_{source.stem if self.csv else type(self).__name__}.json"
        self.naming_advice += f", and delete {self.split_file}, which keeps the numbers"
        path = self.directory / self.split_file
        was_there = path.is_file()
        try:
            split = super().load_split()
        except UserError as error:
            advice = f"; delete {path} to split the images anew" if was_there else ""
            raise UserError(f"{error}{advice}") from error
        self._say_what_changed([item for part in PARTS for item in split[part]])
        return split

    def make_split(self) -> Split:
        """Half of every class for training, a fifth for validation, the rest for the test.

        Raises:
            UserError: a class has fewer than four images.
        """
        try:
            return split_all(self.listed[ALL])
        except UserError as error:
            raise UserError(
                f"{error}; give it four or more, or say yourself which image is for what (train/, "
                "val/ and test/ folders, or a CSV with a split column)"
            ) from error

    def _check_parts(self, table: Table, source: Path) -> None:
        if ALL in table:
            if source == self.root:
                raise UserError(
                    f"DATASET.FOLDER.PATH is the data root {self.root} itself, where features are "
                    "kept beside the datasets; give the folder above it as data root (--root)"
                )
            return
        test, here = self.cfg.TEST, [part for part in table if any(table[part].values())]
        tested = test.NO_TEST or "test" in here or (test.SPLIT == "val" and "val" in here)
        if "train" not in here or not tested:
            instead = "TEST.SPLIT val to test on val, or " if "val" in here else ""
            raise UserError(
                f"{source} has images for {', '.join(here) or 'no part'}, but needs train and test "
                "(val is optional), each with one folder of images a class; without test, set "
                f"{instead}TEST.NO_TEST True"
            )

    def _say_what_changed(self, kept: Sequence[Datum]) -> None:
        """Compare the kept split with what is listed now."""
        # The labels of a split are its own: what counts is which class an image is in.
        before, now = (
            {(item.impath, item.classname) for item in items} for items in (kept, self.listed[ALL])
        )
        if before != now:
            print(
                f"{self.directory / self.split_file} is used as it is, although "
                f"{len(now - before)} of the listed images are not in it and "
                f"{len(before - now)} of its images are not listed (or have another class); "
                "delete it to split anew"
            )


def to_items(table: Table, source: Path, names_file: Path | None) -> Split:
    """Turn paths and class names into labelled images, labels in the order of the classes' keys.

    Args:
        table: part -> class -> paths; the first part has all classes.
        source: a folder or a CSV.
        names_file: gives the classes their names; None takes the keys.

    Raises:
        UserError: no classes, one without images, one that training does not know, or two that
            read alike.
    """
    first = next(iter(table), ALL)
    try:
        classes = in_order(table.get(first, {}))
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    if not classes:
        raise UserError(f"{source} holds no classes: no folders of images, or no rows of a CSV")
    for part, groups in table.items():
        for name, paths in groups.items():
            if name not in table[first]:
                raise UserError(f'{source}: the class "{name}" of {part} is not in {first}')
            if not paths and part == first:
                raise UserError(
                    f'{source}: the class "{name}" has no images; give it some or remove it '
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
    """Make sure that no two classes are the same text to CLIP, which ignores case and underscores.

    Raises:
        UserError: two are.
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
    """Class folder, or label of a CSV -> class name.

    A line is a folder's name (a label), a tab or the first space, and the class name; each folder
    has one line. Blank lines do not count.

    Raises:
        UserError: a line of another form, twice for one folder, without its folder, or missing.
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
