"""Lists of the user's own images by part and class, from class folders or a CSV."""

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

ALL = "all"  # the only part if images have not been split
COLUMNS = ("path", "label")
SEPARATORS = ",;\t"  # spreadsheets write semicolons in locales with a decimal comma
# part -> class -> paths of its images
Table = dict[str, dict[str, list[str]]]


def read_table(path: Path) -> Table:
    """List the images of a CSV in UTF-8 by part and class.

    Paths are relative to the CSV's folder, or absolute and in it; labels are class names. Other
    columns are ignored. Columns are in any order, separated by commas, semicolons or tabs.

    Returns:
        The parts in the order train, val, test, or only `ALL` without a column `split`.

    Raises:
        UserError: the header is missing, a row has no path or label, an image is missing, listed
            twice or outside of the folder, a split is not train, val or test, or the column of
            splits has another name.
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
            raise UserError(f"{where}: {row['path']} is listed in line {seen[image]} already")
        if not Path(image).is_file():
            raise UserError(f"{where}: the image {image} does not exist")
        seen[image] = line
        table.setdefault(part, {}).setdefault(label, []).append(image)
    _warn_of_heic(seen, path, "Listed")
    return {part: table[part] for part in (*PARTS, ALL) if part in table} or {ALL: {}}


def _warn_of_heic(paths: Iterable[str], source: Path, what: str) -> None:
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
                f'{path}: the column "{one_line(name)}" contains the parts train, val or test; '
                "rename it to split, or remove it to split all images automatically"
            )


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line numbers and rows, without spaces around the values."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            separator = max(SEPARATORS, key=first.count)
            reader = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            once = all(header.count(name) == 1 for name in COLUMNS) and header.count("split") < 2
            if not once:
                raise UserError(
                    f'{path}: the first line is "{one_line(first.strip())}", but must name the '
                    "columns: path,label or path,label,split, each once"
                )
            for row in reader:
                if not any(map(str.strip, row)):
                    continue  # spreadsheets write empty lines at the end
                if len(row) != len(header):
                    raise UserError(
                        f"{path}, line {reader.line_num}: there are {len(row)} values for "
                        f"{len(header)} columns"
                    )
                values = (value.strip() for value in row)
                yield reader.line_num, dict(zip(header, values, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a CSV in UTF-8: {error}") from error


def read_folders(folder: Path) -> tuple[Path, Table]:
    """List the images in class folders, by parts or as the single part `ALL`.

    Returns:
        The folder of the parts or classes, see `find_parts`, and the images.

    Raises:
        UserError: the layout is ambiguous, or two class folders have the same name.
    """
    top, parts = find_parts(folder)
    return top, {part: _read_classes(path) for part, path in (parts or {ALL: top}).items()}


def _read_classes(folder: Path) -> dict[str, list[str]]:
    classes: dict[str, list[str]] = {}
    unread: list[str] = []
    others = sum(is_image(path.name) and path.is_file() for path in folder.iterdir())
    for name in folders_in(folder):
        # macOS decomposes accented letters in file names.
        key = unicodedata.normalize("NFC", name)
        if key in classes:
            raise UserError(f'{folder}: two class folders have the same name "{key}"; rename one')
        files = list(files_below(folder / name))
        classes[key] = [path for path in files if is_image(path) and not is_unreadable_heic(path)]
        heic = list(filter(is_unreadable_heic, files))
        unread += heic
        others += len(files) - len(classes[key]) - len(heic)
    _warn_of_heic(unread, folder, "Not used")
    if others:
        print(
            f"Not used in {folder}: {others} files outside of class folders or of other kinds than "
            + " ".join(SUFFIXES)
        )
    return classes
