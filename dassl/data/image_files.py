"""Checks that the image files of a run exist, and which of them are the same file."""

import os
import stat
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from safeio.errors import UserError
from safeio.untrusted import one_line

from .datasets import Datum
from .datasets.overlaps import Overlaps, describe, find_overlaps

MOST_NAMED = 3  # missing files in a message
File = tuple[int, int]  # device and inode


def find_files(paths: Iterable[str]) -> dict[str, File]:
    """Return path -> file for the paths that exist, with links resolved.

    Each folder is listed once, which is faster than a call for each of a million files.
    """
    folders: defaultdict[str, set[str]] = defaultdict(set)
    for path in paths:
        folder, _, name = path.rpartition(os.sep)
        folders[folder].add(name)
    found: dict[str, File] = {}
    for folder, names in folders.items():
        for name, file in _files_in(folder or os.sep, names):
            found[f"{folder}{os.sep}{name}" if folder else name] = file
    return found


def _files_in(folder: str, names: Collection[str]) -> Iterable[tuple[str, File]]:
    left = set(names)
    try:
        device = os.stat(folder).st_dev  # noqa: PTH116
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name in left and not entry.is_symlink() and entry.is_file():
                    left.discard(entry.name)
                    yield entry.name, (device, entry.inode())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError:
        pass  # for example, a folder with execute but no read permission
    # Links, and names that the file system matches in another case or Unicode normalisation.
    for name in left:
        if file := _file_of(f"{folder}{os.sep}{name}"):
            yield name, file


def _file_of(path: str) -> File | None:
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return None if stat.S_ISDIR(status.st_mode) else (status.st_dev, status.st_ino)


def check_files(
    name: str, lists: Mapping[str, Sequence[Datum]], known: Mapping[str, int]
) -> Overlaps:
    """Make sure that all images exist, and warn of unknown duplicates in training, val and test.

    Returns:
        New duplicates, see `find_overlaps`; a training image that was sampled repeatedly counts
        once.

    Raises:
        UserError: images are missing; the message counts them by list and names the first ones.
    """
    files = find_files({item.impath for items in lists.values() for item in items})
    _refuse_missing(name, lists, files)
    parts = {"training": "train", "validation": "val", "test": "test"}
    keys = {}
    for what, part in parts.items():
        paths: Iterable[str] = (item.impath for item in lists.get(what, ()))
        keys[part] = [files[path] for path in (set(paths) if part == "train" else paths)]
    found = {k: count for k, count in find_overlaps(keys).items() if count > known.get(k, 0)}
    if found:
        print(f"Warning: {name}: the same image is listed more than once: {describe(found)}")
    return found


def _refuse_missing(
    name: str, lists: Mapping[str, Sequence[Datum]], files: Mapping[str, File]
) -> None:
    counts, missing = [], dict[str, None]()
    for what, items in lists.items():
        absent = [item.impath for item in items if item.impath not in files]
        missing.update(dict.fromkeys(absent))
        if absent:
            counts.append(f"{len(absent):,} of the {len(items):,} {what} images")
    if counts:
        first = ", ".join(map(one_line, list(missing)[:MOST_NAMED]))
        more = f" and {len(missing) - MOST_NAMED:,} more" if len(missing) > MOST_NAMED else ""
        raise UserError(
            f"{name}: {' and '.join(counts)} cannot be opened: No such file: {first}{more}; "
            "restore the missing files, or remove them from the lists of images"
        )
