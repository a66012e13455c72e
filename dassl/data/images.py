"""Reading image files, and finding those that cannot be read before anything is built on them."""

import hashlib
import json
import os
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import PIL
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from safeio.checksums import DamagedFile, read_sealed, write_sealed
from safeio.errors import UserError
from safeio.untrusted import printable, sentence, shown

from ..config import Config
from .datasets import DATASET_REGISTRY, Datum
from .image_kinds import readable_formats, why_unknown
from .pixels import to_rgb

VERSION = 3  # to be raised when other files can be read, or the same ones as other pixels
LIMIT = "NEMESIS_MAX_PIXELS"
MAX_PIXELS = 2**26  # 67 million, which take 1 GB while they are decoded
AS_VIEWED, AS_STORED = "as_viewed", "as_stored"
_one_opens = threading.Lock()


def decoding(cfg: Config, own: bool = False) -> str:
    """How a configuration wants images decoded: `AS_VIEWED` or `AS_STORED`, see `read_image`.

    Args:
        cfg: INPUT.DECODE; where that is "auto", the class of DATASET.NAME decides (`decode`).
        own: where that is "auto", take the images as somebody's own instead.
    """
    if cfg.INPUT.DECODE != "auto":
        return str(cfg.INPUT.DECODE)
    if own or not cfg.DATASET.NAME:
        return AS_VIEWED if own else AS_STORED
    return str(getattr(DATASET_REGISTRY.get(cfg.DATASET.NAME), "decode", AS_STORED))


def max_pixels() -> int:
    """The largest image that is decoded: `MAX_PIXELS`, or the environment variable `LIMIT`.

    A bound on memory is no part of what a run is, and so no setting of its configuration.

    Raises:
        UserError: the variable is no whole number above 0.
    """
    text = os.environ.get(LIMIT, "").strip()
    if not text:
        return MAX_PIXELS
    if not text.isdecimal() or not int(text):
        raise UserError(
            f"The environment variable {LIMIT} is {shown(text)}, but takes a whole number of "
            f"pixels above 0, such as {MAX_PIXELS} (the default)"
        )
    return int(text)


def read_image(path: str, decode: str = AS_STORED) -> Image.Image:
    """Read an image file as RGB of 8 bits; see `to_rgb`.

    Args:
        path: the file.
        decode: `AS_STORED`, which is what CoOp does, or `AS_VIEWED`: upright by its EXIF
            orientation, with white behind transparent pixels.

    Raises:
        UserError: the file is missing or no readable image, or `max_pixels`.
    """
    limit = max_pixels()
    try:
        # Not by its path: Pillow would map some TIFF files into memory, and scrambles turned ones.
        with Path(path).open("rb") as file, _open(file, limit) as image:
            return to_rgb(image, decode == AS_VIEWED)
    except FileNotFoundError as error:
        raise UserError(f"The image {path} does not exist") from error
    except Exception as error:  # bytes from anywhere make Pillow's many readers fail in any way
        reason = sentence(error) or type(error).__name__
        raise UserError(f"The image {path} cannot be read: {reason}") from error


def _open(file: BinaryIO, limit: int) -> Image.Image:
    """Open an image of at most `limit` pixels, in place of Pillow's own limit.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has more pixels, or is of no readable kind.
    """
    with _one_opens, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        pillows, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, limit
        try:
            image = Image.open(file, formats=readable_formats())
        except UnidentifiedImageError:
            raise ValueError(why_unknown(file)) from None
        except Image.DecompressionBombError:
            raise ValueError(_too_large(f"more than {2 * limit:,}", limit)) from None
        finally:
            Image.MAX_IMAGE_PIXELS = pillows
    width, height = image.size
    if width * height > limit:
        raise ValueError(_too_large(f"{width} x {height}", limit))
    return image


def _too_large(size: str, limit: int) -> str:
    return (
        f"its {size} pixels are more than the limit of {limit:,}; to read it, set the environment "
        f"variable {LIMIT} to more"
    )


def is_broken_image(error: UserError) -> bool:
    """Whether `read_image` failed for what is in the file.

    A file that is missing or that the system does not let us read may be readable the next time.
    """
    cause = error.__cause__
    systems = isinstance(cause, MemoryError)
    return not (systems or (isinstance(cause, OSError) and cause.errno is not None))


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
        return dict(read_sealed(record)["broken"])
    except (OSError, DamagedFile, KeyError, TypeError, ValueError):
        print(f"Checking that {len(unique):,} images can be read")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = pool.map(_what_is_wrong, unique)
        bar = tqdm(reasons, total=len(unique), disable=None, leave=False)
        broken = {path: why for path, why in zip(unique, bar, strict=True) if why}
    try:
        write_sealed({"broken": broken}, record)
    except OSError as error:
        print(f"What was found cannot be kept in {folder}: {error.strerror}")
    return broken


def _what_is_wrong(path: str) -> str:
    try:
        read_image(path)
    except UserError as error:
        if not is_broken_image(error):
            raise
        return sentence(str(error.__cause__))
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
