"""Whether the files of a run's images are there, and which of them are the same."""

import os
import stat
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from safeio.errors import UserError
from safeio.untrusted import one_line

from .datasets import Datum
from .datasets.overlaps import Overlaps, describe, find_overlaps

SHOWN = 3  # missing files that a message names
File = tuple[int, int]  # device and inode


def find_files(paths: Iterable[str]) -> dict[str, File]:
    """Look paths up, listing each folder once instead of asking for each of a million files.

    Args:
        paths: of image files.

    Returns:
        Path -> its file, behind links; paths without one are left out.
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
        pass  # such as a folder that may be entered but not listed
    # Links, and names that the file system knows under another case or spelling of accents.
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
    """Make sure that all images are there, and warn where some are the same file.

    Args:
        name: of the dataset.
        lists: what the images are for -> images; "training", "validation" and "test" are compared.
        known: what is known to stand twice, of which no warning is printed again.

    Returns:
        What stands twice beyond that, see `find_overlaps`; a training image that was drawn more
        than once counts once.

    Raises:
        UserError: some are missing; says how many of which list, and names the first.
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
        print(f"Warning: {name}: the same image stands more than once: {describe(found)}")
    return found


def _refuse_missing(
    name: str, lists: Mapping[str, Sequence[Datum]], files: Mapping[str, File]
) -> None:
    counts, missing = [], dict[str, None]()
    for what, items in lists.items():
        lost = [item.impath for item in items if item.impath not in files]
        missing.update(dict.fromkeys(lost))
        if lost:
            counts.append(f"{len(lost):,} of the {len(items):,} {what} images")
    if counts:
        first = ", ".join(map(one_line, list(missing)[:SHOWN]))
        more = f" and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else ""
        raise UserError(
            f"{name}: {' and '.join(counts)} cannot be opened: No such file: {first}{more}; put "
            "what is missing in its place, or take it out of the lists of images"
        )
