"""Detection of images that cannot be decoded, before a run uses them."""

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

VERSION = 3  # increment it when the set of readable files or their decoded pixels change


def without_broken(items: Sequence[Datum], what: str, folder: Path) -> list[Datum]:
    """Return the images of a split that can be decoded, and print the others.

    Every file is decoded once; the result is cached until a file changes. So all runs on the same
    images skip the same ones.

    Raises:
        UserError: no image is left, a file is missing, or the system cannot read it.
    """
    broken = find_broken([item.impath for item in items], folder)
    readable = [item for item in items if item.impath not in broken]
    if broken:
        print(
            f"Left out {len(items) - len(readable)} of {len(items):,} {what} images, which cannot "
            "be read (DATALOADER.ON_BAD_IMAGE skip):"
        )
        for path, why in broken.items():
            print(f"  {printable(path)}: {why}")
    if items and not readable:
        raise UserError(f"None of the {len(items):,} {what} images can be read, see the list above")
    return readable


def check_classes_left(before: Sequence[Datum], after: Sequence[Datum]) -> None:
    """Make sure that every class still has a training image.

    Raises:
        UserError: a class has none; the message names the first one.
    """
    left = {item.label for item in after}
    for item in before:
        if item.label not in left:
            raise UserError(
                f'None of the training images of the class "{item.classname}" can be read, see the '
                "list above; repair or replace them"
            )


def find_broken(paths: Sequence[str], folder: Path) -> dict[str, str]:
    """Return path -> reason for all files that cannot be decoded.

    Args:
        paths: image files.
        folder: cache of the results, as <hash of paths, sizes and modification times>.json.

    Raises:
        UserError: a file is missing, or the system cannot read it.
    """
    unique = list(dict.fromkeys(paths))
    record = folder / f"{_fingerprint(unique)}.json"
    try:
        return dict(read_verified_json(record)["broken"])
    except (OSError, DamagedFile, KeyError, TypeError, ValueError):
        print(f"Checking that {len(unique):,} images can be read")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = pool.map(_decoding_error, unique)
        bar = tqdm(reasons, total=len(unique), disable=None, leave=False)
        broken = {path: why for path, why in zip(unique, bar, strict=True) if why}
    try:
        write_json_with_checksum({"broken": broken}, record)
    except OSError as error:
        print(f"The result of this check cannot be saved in {folder}: {error.strerror}")
    return broken


def _decoding_error(path: str) -> str:
    try:
        read_image(path)
    except UserError as error:
        if not is_broken_image(error):
            raise
        return one_line(str(error.__cause__))
    return ""


def _fingerprint(paths: Sequence[str]) -> str:
    """Return a hash of everything that decides whether the files can be decoded."""
    described: list[object] = [PIL.__version__, VERSION, max_pixels(), readable_formats()]
    for path in paths:
        try:
            stat = Path(path).stat()
        except OSError as error:
            raise UserError(f"The image {path} cannot be opened: {error.strerror}") from error
        described.append([str(Path(path).absolute()), stat.st_size, stat.st_mtime_ns])
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()
