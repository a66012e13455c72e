"""Find image files by the paths, folders and glob patterns of a command line."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from dassl.data.image_kinds import SUFFIXES, is_image


def find_images(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """List the image files of paths, folders and glob patterns.

    A folder contributes the images in it and its subfolders, sorted by path, without hidden files.
    In folders and patterns, a file is an image by its suffix. An explicitly named file is included
    regardless of its suffix.

    Args:
        arguments: files, folders or patterns such as `pictures/**/*.png`.

    Returns:
        The files without duplicates, and a sentence for each argument without images.
    """
    files: dict[str, None] = {}
    problems = []
    for argument in arguments:
        found = list(_files_of(argument))
        files.update(dict.fromkeys(found))
        if not found:
            problems.append(_problem(argument))
    return list(files), problems


def _files_of(argument: str) -> Iterator[str]:
    if Path(argument).is_dir():
        yield from _files_in(argument)
    elif Path(argument).exists():
        yield argument
    else:
        # Path.glob refuses patterns that begin with a slash.
        for match in sorted(glob.glob(argument, recursive=True)):  # noqa: PTH207
            if Path(match).is_dir():
                yield from _files_in(match)
            elif is_image(match):
                yield match


def _files_in(folder: str) -> Iterator[str]:
    yield from sorted(filter(is_image, _all_files_in(folder)))


def _all_files_in(folder: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (str(Path(parent, name)) for name in names if not name.startswith("."))


def unused_files(arguments: Iterable[str]) -> list[str]:
    """Return a sentence for each folder with non-hidden files that `find_images` skips."""
    found = []
    for argument in filter(os.path.isdir, arguments):
        names = [path for path in _all_files_in(argument) if not is_image(path)]
        kinds = Counter(Path(name).suffix.lower() or "no suffix" for name in names)
        counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(5))
        if names:
            more = ", ..." if len(kinds) > 5 else ""
            found.append(
                f"Not used in {argument}: {len(names):,} files of other kinds ({counts}{more})"
            )
    return found


def _problem(argument: str) -> str:
    if Path(argument).is_dir():
        return f"The folder {argument} contains no images ({', '.join(SUFFIXES)})"
    if any(character in argument for character in "*?["):
        return f"The pattern {argument} matches no images ({', '.join(SUFFIXES)})"
    return f"The image {argument} does not exist"
