"""From what a command line names - files, folders, patterns - to image files."""

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

SUFFIXES = (*IMG_EXTENSIONS, ".gif")


def find_images(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """List the image files that paths and patterns name.

    A folder stands for the images in it and in the folders below, in the order of their paths,
    without hidden ones; in folders and patterns a file is an image by its suffix. A file that is
    named itself is taken whatever it is called.

    Args:
        arguments: files, folders or patterns such as `pictures/**/*.png`.

    Returns:
        The files, each once, and a sentence for each argument that stands for none.
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
        # Path.glob would refuse a pattern that begins with a slash.
        for match in sorted(glob.glob(argument, recursive=True)):  # noqa: PTH207
            if Path(match).is_dir():
                yield from _files_in(match)
            elif is_image(match):
                yield match


def _files_in(folder: str) -> Iterator[str]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [str(Path(parent, name)) for name in names if is_image(name)]
    yield from sorted(found)


def is_image(path: str) -> bool:
    """Whether a file's name is an image's."""
    name = Path(path).name.lower()
    return name.endswith(SUFFIXES) and not name.startswith(".")


def _problem(argument: str) -> str:
    if Path(argument).is_dir():
        return f"The folder {argument} holds no images ({', '.join(SUFFIXES)})"
    if any(character in argument for character in "*?["):
        return f"The pattern {argument} matches no images ({', '.join(SUFFIXES)})"
    return f"The image {argument} does not exist"
