"""Reading image files."""

import os
import threading
import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from safeio.errors import UserError
from safeio.untrusted import one_line, short_repr

from ..config import Config
from .datasets import DATASET_REGISTRY
from .image_kinds import readable_formats, why_unknown
from .pixels import to_rgb

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
            f"The environment variable {LIMIT} is {short_repr(text)}, but takes a whole number of "
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
        reason = one_line(error) or type(error).__name__
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
