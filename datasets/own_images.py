"""Lists of the user's own images by part and class: from class folders, or from a CSV."""

import csv
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from dassl.data.datasets.paths import safe_join
from dassl.data.datasets.splits import PARTS
from dassl.data.image_kinds import HEIF_ADVICE, SUFFIXES, is_image, is_unreadable_heic
from safeio.errors import UserError
from safeio.untrusted import one_line

from .part_folders import files_below, find_parts, folders_in, part_of

ALL = "all"  # the part of images that are still to be split
COLUMNS = ("path", "label")
SEPARATORS = ",;\t"  # spreadsheets write semicolons where the comma stands in numbers
# part -> class -> paths of its images
Table = dict[str, dict[str, list[str]]]


def read_table(path: Path) -> Table:
    """List the images of a CSV by part and class.

    Paths stay in the CSV's folder, to which they are relative (or they are absolute); labels are
    class names. Other columns may stand beside these, in any order; commas, semicolons or tabs
    between them.

    Args:
        path: the CSV, UTF-8.

    Returns:
        The parts in the order train, val, test, or `ALL` alone without a column `split`.

    Raises:
        UserError: no header, a row without path or label, an image that is missing, listed twice or
            out of the folder, a split that is none of train, val and test, or one in a column of
            another name.
    """
    table: Table = {}
    seen: dict[str, int] = {}
    rows = list(_rows(path))
    _refuse_hidden_split(path, [row for _, row in rows])
    for line, row in rows:
        where = f"{path}, line {line}"
        label = unicodedata.normalize("NFC", row["label"])
        if not row["path"] or not label:
            raise UserError(f"{where}: the path or the label is empty")
        part = part_of(row["split"]) if "split" in row else ALL
        if part is None:
            raise UserError(
                f'{where}: the split is "{row["split"]}", but must be train, val or test'
            )
        try:
            image = safe_join(path.parent, row["path"])
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        if image in seen:
            raise UserError(f"{where}: {row['path']} stands in line {seen[image]} already")
        if not Path(image).is_file():
            raise UserError(f"{where}: the image {image} does not exist")
        seen[image] = line
        table.setdefault(part, {}).setdefault(label, []).append(image)
    _say_what_lacks_a_reader(seen, path, "Listed")
    return {part: table[part] for part in (*PARTS, ALL) if part in table} or {ALL: {}}


def _say_what_lacks_a_reader(paths: Iterable[str], source: Path, what: str) -> None:
    count = sum(map(is_unreadable_heic, paths))
    if count:
        print(f"Warning: {what} in {source}: {count:,} HEIC images; {HEIF_ADVICE}")


def _refuse_hidden_split(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Refuse a column of parts that is not called `split`: its test images would be trained on."""
    columns = sorted(set(rows[0]) - {*COLUMNS}) if rows and "split" not in rows[0] else []
    for name in columns:
        parts = {part_of(row[name]) for row in rows}
        if None not in parts and len(parts) > 1:
            raise UserError(
                f'{path}: the column "{one_line(name)}" holds the parts train, val or test, which '
                "a column called split has to hold; rename it, or take it out to have all images "
                "split anew"
            )


def _separator(first: str) -> str:
    """What stands between the columns that a CSV's first line names."""
    fits = (
        one
        for one in SEPARATORS
        if {*COLUMNS} <= {*_names(next(csv.reader([first], delimiter=one), []))}
    )
    return next(fits, SEPARATORS[0])


def _names(header: Iterable[str]) -> list[str]:
    return [name.strip().lower() for name in header]


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers and rows, without the spaces around their values."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            separator = _separator(first)
            reader = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
            header = _names(next(reader, []))
            once = all(header.count(name) == 1 for name in COLUMNS) and header.count("split") < 2
            if not once:
                raise UserError(
                    f'{path}: the first line is "{one_line(first.strip())}", but must name the '
                    "columns: path,label or path,label,split, each once"
                )
            for row in reader:
                if not any(map(str.strip, row)):
                    continue  # spreadsheets leave such lines at the end
                if len(row) != len(header):
                    raise UserError(
                        f"{path}, line {reader.line_num}: {len(row)} values stand under "
                        f"{len(header)} columns"
                    )
                values = (value.strip() for value in row)
                yield reader.line_num, dict(zip(header, values, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a CSV in UTF-8: {error}") from error


def read_folders(folder: Path) -> tuple[Path, Table]:
    """List class folders: those in the folders of parts, or all of them as one part.

    Returns:
        The folder of the parts or classes, see `find_parts`, and the list.

    Raises:
        UserError: it cannot be told which folders are classes, or two have the same name.
    """
    meant, parts = find_parts(folder)
    return meant, {part: _read_classes(path) for part, path in (parts or {ALL: meant}).items()}


def _read_classes(folder: Path) -> dict[str, list[str]]:
    classes: dict[str, list[str]] = {}
    unread: list[str] = []
    others = sum(is_image(path.name) and path.is_file() for path in folder.iterdir())
    for name in folders_in(folder):
        # macOS writes accented letters in another way than others do.
        key = unicodedata.normalize("NFC", name)
        if key in classes:
            raise UserError(f'{folder}: two class folders have the same name "{key}"; rename one')
        files = list(files_below(folder / name))
        classes[key] = [path for path in files if is_image(path) and not is_unreadable_heic(path)]
        here = list(filter(is_unreadable_heic, files))
        unread += here
        others += len(files) - len(classes[key]) - len(here)
    _say_what_lacks_a_reader(unread, folder, "Not used")
    if others:
        print(
            f"Not used in {folder}: {others} files outside of class folders or of other kinds than "
            + " ".join(SUFFIXES)
        )
    return classes
