"""Finding images that cannot be read, before anything is built on them."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import PIL
from tqdm import tqdm

from safeio.checksums import DamagedFile, read_verified_json, write_json_with_checksum
from safeio.errors import UserError
from safeio.untrusted import one_line, printable

from .datasets import Datum
from .image_kinds import readable_formats
from .images import is_broken_image, max_pixels, read_image

VERSION = 3  # to be raised when other files can be read, or the same ones as other pixels


def without_broken(items: Sequence[Datum], what: str, folder: Path) -> list[Datum]:
    """Leave out the images that cannot be decoded, and print which.

    Every file is decoded once; what was found is kept until a file changes. So every run on the
    same images leaves out the same.

    Args:
        items: images.
        what: what they are for, such as "test".
        folder: where the outcome is kept.

    Returns:
        The readable ones, in their order.

    Raises:
        UserError: no image is left, a file is missing, or the system cannot read it.
    """
    broken = find_broken([item.impath for item in items], folder)
    kept = [item for item in items if item.impath not in broken]
    if broken:
        print(
            f"Left out {len(items) - len(kept)} of {len(items):,} {what} images, which cannot be "
            "read (DATALOADER.ON_BAD_IMAGE skip):"
        )
        for path, why in broken.items():
            print(f"  {printable(path)}: {why}")
    if items and not kept:
        raise UserError(f"None of the {len(items):,} {what} images can be read, see the list above")
    return kept


def check_classes_left(before: Sequence[Datum], after: Sequence[Datum]) -> None:
    """Make sure that every class still has a training image.

    Raises:
        UserError: names the first class without.
    """
    left = {item.label for item in after}
    for item in before:
        if item.label not in left:
            raise UserError(
                f'None of the training images of the class "{item.classname}" can be read, see the '
                "list above; mend or replace them"
            )


def find_broken(paths: Sequence[str], folder: Path) -> dict[str, str]:
    """Path -> what is wrong, for all files that are no readable image.

    Args:
        paths: image files.
        folder: keeps the outcome as <digest of paths, sizes and times of change>.json.

    Raises:
        UserError: a file is missing, or the system cannot read it.
    """
    unique = list(dict.fromkeys(paths))
    record = folder / f"{_digest(unique)}.json"
    try:
        return dict(read_verified_json(record)["broken"])
    except (OSError, DamagedFile, KeyError, TypeError, ValueError):
        print(f"Checking that {len(unique):,} images can be read")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = pool.map(_what_is_wrong, unique)
        bar = tqdm(reasons, total=len(unique), disable=None, leave=False)
        broken = {path: why for path, why in zip(unique, bar, strict=True) if why}
    try:
        write_json_with_checksum({"broken": broken}, record)
    except OSError as error:
        print(f"What was found cannot be kept in {folder}: {error.strerror}")
    return broken


def _what_is_wrong(path: str) -> str:
    try:
        read_image(path)
    except UserError as error:
        if not is_broken_image(error):
            raise
        return one_line(str(error.__cause__))
    return ""


def _digest(paths: Sequence[str]) -> str:
    """Of all that decides whether the files can be decoded."""
    described: list[object] = [PIL.__version__, VERSION, max_pixels(), readable_formats()]
    for path in paths:
        try:
            stat = Path(path).stat()
        except OSError as error:
            raise UserError(f"The image {path} cannot be opened: {error.strerror}") from error
        described.append([str(Path(path).absolute()), stat.st_size, stat.st_mtime_ns])
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()
