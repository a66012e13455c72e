"""Cached listing of the images in class folders.

ImageNet has 1.3 million images, which take minutes to list on a network drive. So the file names
are cached in a compressed file next to the images. Only class folders whose modification time has
changed are listed again. The cache may be deleted at any time.
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
from .class_checks import sort_classes

VERSION = 2
# A folder that changed this recently may change again within the same modification time.
_RECENT_NS = 2 * 10**9
_DAMAGES = (
    *(OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError),
    OverflowError,
)
LARGEST_LISTING = 1 << 27  # bytes; ImageNet's has 50 million

# class folder -> modification time in nanoseconds, names of images
Listing = dict[str, tuple[int, list[str]]]


def list_images(
    directory: Path, cache: Path | None = None, ignored: Collection[str] = ()
) -> dict[str, list[str]]:
    """List the images of every class folder.

    Args:
        directory: the folder of the class folders, which may be links.
        cache: file that caches the listing; without write permission, it is only read.
        ignored: class folders to skip.

    Returns:
        Folder name -> names of its images (`is_image`), both sorted, without hidden folders.

    Raises:
        UserError: a folder is missing, unreadable or without images, or a file name is not UTF-8.
    """
    now = time.time_ns()
    times = _modification_times(directory, ignored)
    cached = _read(cache) if cache is not None else {}
    entries: Listing = {}
    for folder, modified in tqdm(times.items(), disable=None, leave=False, desc="Listing"):
        entry = cached.get(folder)
        if entry is None or entry[0] != modified:
            entry = (modified, _image_names(directory / folder))
        entries[folder] = entry
    _refuse_empty(directory, entries)
    stable = {f: entry for f, entry in entries.items() if abs(now - entry[0]) > _RECENT_NS}
    if cache is not None and _times(stable) != _times(cached):
        write_listing(stable, cache)
    return {folder: names for folder, (_, names) in entries.items()}


def class_items(
    directory: Path, listing: dict[str, list[str]], classes: Mapping[str, str]
) -> list[Datum]:
    """Label the listed images.

    Args:
        directory: the folder that was listed.
        listing: result of `list_images`; it is emptied, so that the names and the paths of a
            million images are not in memory at the same time.
        classes: folder name -> class name, in the order of the labels.

    Raises:
        UserError: a folder is not a class, or a class has no folder.
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
            f"The folder {directory / missing[0]} is missing: {directory} must contain one folder "
            f"of images for each of the {len(classes)} classes, and {len(missing)} are missing"
        )
    items: list[Datum] = []
    for label, (folder, classname) in enumerate(classes.items()):
        prefix = str(directory / folder) + os.sep
        items += [Datum(prefix + name, label, 0, classname) for name in listing.pop(folder)]
    return items


def folder_items(
    directory: Path, renamed: Mapping[str, str] | None = None, ignored: Collection[str] = ()
) -> list[Datum]:
    """Label the images in class folders in the order of `sort_classes`; some may be renamed.

    Raises:
        UserError: see `list_images`.
    """
    listing = list_images(directory, ignored=ignored)
    names = renamed or {}
    return class_items(
        directory, listing, {folder: names.get(folder, folder) for folder in sort_classes(listing)}
    )


def _modification_times(directory: Path, ignored: Collection[str]) -> dict[str, int]:
    """Return sorted class folder -> modification time in nanoseconds."""
    try:
        with os.scandir(directory) as entries:
            folders = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
        # DirEntry.stat() may be outdated on some systems.
        times = {f: (directory / f).stat().st_mtime_ns for f in folders if f not in ignored}
    except OSError as error:
        raise UserError(
            f"The image folder {directory} cannot be listed: {error.strerror}"
        ) from error
    if not times:
        raise UserError(f"{directory} contains no folders; it must have a folder of images a class")
    return times


def _image_names(folder: Path) -> list[str]:
    try:
        found = os.listdir(folder)  # noqa: PTH208 (names only: a million Path objects are slow)
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be listed: {error.strerror}") from error
    names = sorted(filter(is_image, found))
    try:
        "".join((folder.name, *names)).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"A name in {str(folder)!a} is not valid UTF-8: {error.object[:200]!a}; rename it"
        ) from error
    return names


def _refuse_empty(directory: Path, entries: Listing) -> None:
    empty = [folder for folder, (_, names) in entries.items() if not names]
    if empty:
        first = ", ".join(empty if len(empty) <= 10 else [*empty[:10], "..."])
        raise UserError(
            f"{directory} contains class folders without images: {first}; add images to them or "
            "remove them"
        )


def _times(entries: Listing) -> dict[str, int]:
    return {folder: modified for folder, (modified, _) in entries.items()}


def _read(path: Path) -> Listing:
    """Read a cached listing; return an empty one if the file is missing or damaged."""
    if not path.is_file():
        return {}
    try:
        content = parse_json(_decompress(path))
        folders = content["folders"] if content["version"] == VERSION else {}
        cached = {folder: (int(modified), names) for folder, (modified, names) in folders.items()}
        if any("/" in "".join(names) for _, names in cached.values()):
            raise ValueError("a name leads out of its folder")
    except _DAMAGES:
        print(f"{path} is damaged: listing the images again")
        return {}
    return cached


def _decompress(path: Path) -> bytes:
    with gzip.open(path) as file:
        data = file.read(LARGEST_LISTING + 1)
    if len(data) > LARGEST_LISTING:
        raise ValueError("it is too large")
    return data


def write_listing(entries: Listing, path: Path) -> None:
    """Cache a listing; print a note if the file cannot be written."""
    text = json.dumps({"version": VERSION, "folders": entries}, separators=(",", ":"))
    data = gzip.compress(text.encode(), compresslevel=1)
    try:
        write_atomic(path, lambda temporary: temporary.write_bytes(data))
    except OSError as error:
        print(f"The listing could not be saved to {path}: {error.strerror}")
