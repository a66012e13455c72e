"""Lists of the user's own images by part and class: from class folders, or from a CSV."""

import csv
import os
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from dassl.data.datasets.splits import PARTS, safe_join
from dassl.data.image_kinds import HEIF_ADVICE, SUFFIXES, is_image, lacks_reader
from dassl.utils import UserError
from dassl.utils.strangers import printable

ALL = "all"  # the part of images that are still to be split
COLUMNS = ("path", "label")
# Folders that are no classes: ours, and what macOS leaves in archives.
NO_CLASS = ("split_fewshot", "__MACOSX")
# part -> class -> paths of its images
Table = dict[str, dict[str, list[str]]]


def read_table(path: Path) -> Table:
    """List the images of a CSV by part and class.

    Paths are relative to the CSV's folder and stay inside it; labels are class names. Other
    columns may stand beside these, in any order.

    Args:
        path: the CSV, UTF-8.

    Returns:
        The parts in the order train, val, test, or `ALL` alone without a column `split`.

    Raises:
        UserError: no header, a row without path or label, an image that is missing, listed twice or
            out of the folder, or a split that is none of train, val and test.
    """
    table: Table = {}
    seen: dict[str, int] = {}
    for line, row in _rows(path):
        where = f"{path}, line {line}"
        part, label = row.get("split", ALL), unicodedata.normalize("NFC", row["label"])
        if not row["path"] or not label:
            raise UserError(f"{where}: the path or the label is empty")
        if part not in (*PARTS, ALL) or (part == ALL and "split" in row):
            raise UserError(f'{where}: the split is "{part}", but must be train, val or test')
        image = safe_join(path.parent, row["path"])
        if image in seen:
            raise UserError(f"{where}: {row['path']} stands in line {seen[image]} already")
        if not Path(image).is_file():
            raise UserError(f"{where}: the image {image} does not exist")
        seen[image] = line
        table.setdefault(part, {}).setdefault(label, []).append(image)
    _say_what_lacks_a_reader(seen, path, "Listed")
    return {part: table[part] for part in (*PARTS, ALL) if part in table} or {ALL: {}}


def _say_what_lacks_a_reader(paths: Iterable[str], source: Path, what: str) -> None:
    count = sum(map(lacks_reader, paths))
    if count:
        print(f"Warning: {what} in {source}: {count:,} HEIC images; {HEIF_ADVICE}")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers and rows, without the spaces around their values."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if any(name not in header for name in COLUMNS) or len(set(header)) < len(header):
                raise UserError(
                    f'{path}: the first line is "{",".join(header)}", but must name the columns: '
                    "path,label or path,label,split"
                )
            for row in filter(None, reader):
                if len(row) != len(header):
                    raise UserError(
                        f"{path}, line {reader.line_num}: {len(row)} values stand under "
                        f"{len(header)} columns"
                    )
                values = (value.strip() for value in row)
                yield reader.line_num, dict(zip(header, values, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a CSV in UTF-8: {error}") from error


def read_folders(folder: Path) -> Table:
    """List class folders: those in train/, val/ and test/, or all of them as one part.

    Parts are given where there is a train/ that holds folders and no images of its own: otherwise
    it is a class.
    """
    if _holds_class_folders(folder / "train"):
        parts = {part: folder / part for part in PARTS if (folder / part).is_dir()}
        aside = [name for name in _folders_in(folder) if name not in parts]
        if aside:
            print(f"Not used beside {', '.join(parts)} in {folder}: {printable(', '.join(aside))}")
    else:
        parts = {ALL: folder}
    return {part: _read_classes(path) for part, path in parts.items()}


def _read_classes(folder: Path) -> dict[str, list[str]]:
    classes: dict[str, list[str]] = {}
    unread: list[str] = []
    others = sum(is_image(path.name) and path.is_file() for path in folder.iterdir())
    for name in _folders_in(folder):
        # macOS writes accented letters in another way than others do.
        key = unicodedata.normalize("NFC", name)
        if key in classes:
            raise UserError(f'{folder}: two class folders have the same name "{key}"; rename one')
        files = list(files_below(folder / name))
        classes[key] = [path for path in files if is_image(path) and not lacks_reader(path)]
        here = list(filter(lacks_reader, files))
        unread += here
        others += len(files) - len(classes[key]) - len(here)
    _say_what_lacks_a_reader(unread, folder, "Not used")
    if others:
        print(
            f"Not used in {folder}: {others} files outside of class folders or of other kinds than "
            + " ".join(SUFFIXES)
        )
    return classes


def _holds_class_folders(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    images = (path for path in folder.iterdir() if is_image(path.name))
    return bool(_folders_in(folder)) and not any(path.is_file() for path in images)


def _folders_in(folder: Path) -> list[str]:
    entries = (path for path in folder.iterdir() if path.is_dir())
    names = (path.name for path in entries if not path.name.startswith("."))
    return sorted(name for name in names if name not in NO_CLASS)


def files_below(folder: Path) -> Iterator[str]:
    """Paths of all files below a folder that are not hidden, in a fixed order.

    Links are followed, but no folder is entered twice, so that links in a circle come to an end.

    Raises:
        UserError: a name is not UTF-8, which no split file could hold.
    """
    entered: set[Path] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = Path(where).resolve()
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            path = f"{where}{os.sep}{name}"
            if any("\ud800" <= letter <= "\udfff" for letter in path):
                raise UserError(f"The file name {path!a} is not UTF-8; rename the file")
            yield path
