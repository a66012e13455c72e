"""Listing a folder with one sub-folder a class: once, and then from a kept file.

ImageNet has 1.3 million images. Asking a network drive for their names takes minutes, so they are
kept in one compressed file beside the images. A class folder's time of change tells whether what
was kept of it still holds; only folders that changed are listed again. The file may be deleted at
any time.
"""

import gzip
import json
import os
import time
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

from tqdm import tqdm

from safeio.errors import UserError
from safeio.files import write_atomic
from safeio.untrusted import parse_json

from ..image_kinds import is_image
from .base_dataset import Datum
from .class_checks import in_order

VERSION = 2
# A folder that changed this recently may change again without a new time of change.
_UNSETTLED_NS = 2 * 10**9
_DAMAGES = (
    *(OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError),
    OverflowError,
)
LARGEST_LISTING = 1 << 27  # bytes; ImageNet's has 50 million

Kept = dict[str, tuple[int, list[str]]]


def list_images(
    directory: Path, keep: Path | None = None, ignored: Collection[str] = ()
) -> dict[str, list[str]]:
    """List the images of every class folder.

    Args:
        directory: holds one folder a class; links to folders count, too.
        keep: the file that the listing is read from, and written to where that is possible.
        ignored: class folders to leave out.

    Returns:
        Folder name -> names of its images (`is_image`), both sorted. Hidden folders are left out.

    Raises:
        UserError: a folder is missing, cannot be read or holds no images, or a file's name is not
            UTF-8.
    """
    now = time.time_ns()
    stamps = _stamps(directory, ignored)
    kept = _read(keep) if keep is not None else {}
    entries: Kept = {}
    for folder, stamp in tqdm(stamps.items(), disable=None, leave=False, desc="Listing"):
        entry = kept.get(folder)
        if entry is None or entry[0] != stamp:
            entry = (stamp, _image_names(directory / folder))
        entries[folder] = entry
    _refuse_empty(directory, entries)
    settled = {f: entry for f, entry in entries.items() if abs(now - entry[0]) > _UNSETTLED_NS}
    if keep is not None and _times(settled) != _times(kept):
        write_listing(settled, keep)
    return {folder: names for folder, (_, names) in entries.items()}


def class_items(
    directory: Path, listing: dict[str, list[str]], classes: Mapping[str, str]
) -> list[Datum]:
    """Label the listed images.

    Args:
        directory: the folder that was listed.
        listing: what `list_images` gave; used up here, so that the names and the paths of a
            million images are not in memory at once.
        classes: folder name -> class name, in the order of the labels.

    Raises:
        UserError: a folder is no class, or a class has no folder.
    """
    unknown = [folder for folder in listing if folder not in classes]
    if unknown:
        raise UserError(
            f"{directory / unknown[0]} is not the folder of one of the {len(classes)} known "
            "classes; remove it, or correct the list of classes"
        )
    missing = [folder for folder in classes if folder not in listing]
    if missing:
        raise UserError(
            f"The folder {directory / missing[0]} is missing: {directory} has to hold one folder "
            f"of images for each of the {len(classes)} classes, and {len(missing)} are not there"
        )
    items: list[Datum] = []
    for label, (folder, classname) in enumerate(classes.items()):
        prefix = str(directory / folder) + os.sep
        items += [Datum(prefix + name, label, 0, classname) for name in listing.pop(folder)]
    return items


def folder_items(
    directory: Path, renamed: Mapping[str, str] | None = None, ignored: Collection[str] = ()
) -> list[Datum]:
    """Label the images of a folder whose sub-folders, sorted (numbers as such), are the classes.

    Args:
        directory: holds one folder a class.
        renamed: folder name -> class name, where these differ.
        ignored: folders that are no classes.

    Raises:
        UserError: see `list_images`.
    """
    listing = list_images(directory, ignored=ignored)
    names = renamed or {}
    return class_items(
        directory, listing, {folder: names.get(folder, folder) for folder in in_order(listing)}
    )


def _stamps(directory: Path, ignored: Collection[str]) -> dict[str, int]:
    """Sorted class folders with their times of change."""
    try:
        with os.scandir(directory) as entries:
            folders = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
        # Not the entry's own stat: on some systems that is a copy from before the latest change.
        stamps = {f: (directory / f).stat().st_mtime_ns for f in folders if f not in ignored}
    except OSError as error:
        raise UserError(
            f"The image folder {directory} cannot be listed: {error.strerror}"
        ) from error
    if not stamps:
        raise UserError(f"{directory} holds no folders; expected is one folder of images a class")
    return stamps


def _image_names(folder: Path) -> list[str]:
    try:
        found = os.listdir(folder)  # noqa: PTH208 (names are wanted, not a million Path objects)
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be listed: {error.strerror}") from error
    names = sorted(filter(is_image, found))
    try:
        "".join((folder.name, *names)).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"Not UTF-8 is a name in {str(folder)!a}: {error.object[:200]!a}; rename it"
        ) from error
    return names


def _refuse_empty(directory: Path, entries: Kept) -> None:
    empty = [folder for folder, (_, names) in entries.items() if not names]
    if empty:
        raise UserError(
            f"{directory}: no images are in the class folder{'s' * (len(empty) > 1)} "
            f"{', '.join(empty[:10])}{', ...' * (len(empty) > 10)}; fill or remove what is empty"
        )


def _times(entries: Kept) -> dict[str, int]:
    return {folder: stamp for folder, (stamp, _) in entries.items()}


def _read(path: Path) -> Kept:
    """Read what was kept; nothing if there is none or it is not what was written."""
    if not path.is_file():
        return {}
    try:
        content = parse_json(_unpacked(path))
        folders = content["folders"] if content["version"] == VERSION else {}
        kept = {folder: (int(stamp), names) for folder, (stamp, names) in folders.items()}
        if any("/" in "".join(names) for _, names in kept.values()):
            raise ValueError("a name leads out of its folder")
    except _DAMAGES:
        print(f"{path} is damaged: listing the images again")
        return {}
    return kept


def _unpacked(path: Path) -> bytes:
    with gzip.open(path) as file:
        data = file.read(LARGEST_LISTING + 1)
    if len(data) > LARGEST_LISTING:
        raise ValueError("it is too large")
    return data


def write_listing(entries: Kept, path: Path) -> None:
    """Keep a listing, where that is possible.

    Args:
        entries: class folder -> its time of change in nanoseconds and the names of its images.
        path: the file.
    """
    text = json.dumps({"version": VERSION, "folders": entries}, separators=(",", ":"))
    data = gzip.compress(text.encode(), compresslevel=1)
    try:
        write_atomic(path, lambda temporary: temporary.write_bytes(data))
    except OSError as error:
        print(f"The listing could not be kept in {path}: {error.strerror}")
