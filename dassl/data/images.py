"""Reading image files."""

import os
import threading
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
_open_lock = threading.Lock()  # Pillow's limit on pixels is global


def decoding(cfg: Config, own: bool = False) -> str:
    """Return how images are decoded, `AS_VIEWED` or `AS_STORED`; see `read_image`.

    Args:
        cfg: INPUT.DECODE; if it is "auto", the dataset's class decides (attribute `decode`).
        own: if it is "auto", decode as the user's own images, not as the dataset's.
    """
    if cfg.INPUT.DECODE != "auto":
        return str(cfg.INPUT.DECODE)
    if own or not cfg.DATASET.NAME:
        return AS_VIEWED if own else AS_STORED
    return str(getattr(DATASET_REGISTRY.get(cfg.DATASET.NAME), "decode", AS_STORED))


def max_pixels() -> int:
    """Return the limit on an image's pixels: environment variable `LIMIT`, default `MAX_PIXELS`.

    It bounds memory and does not affect results, so it is not part of the configuration.

    Raises:
        UserError: the variable is not an integer above 0.
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
        decode: `AS_STORED`, as in CoOp, or `AS_VIEWED`: rotated by its EXIF orientation, with white
            behind transparent pixels.

    Raises:
        UserError: the file is missing or not a readable image, or `max_pixels`.
    """
    limit = max_pixels()
    try:
        # Given a path, Pillow memory-maps some TIFF files and then scrambles rotated ones.
        with Path(path).open("rb") as file, _open(file, limit) as image:
            return to_rgb(image, decode == AS_VIEWED)
    except FileNotFoundError as error:
        raise UserError(f"The image {path} does not exist") from error
    except Exception as error:  # damaged bytes make Pillow's decoders raise anything
        reason = one_line(error) or type(error).__name__
        raise UserError(f"The image {path} cannot be read: {reason}") from error


def _open(file: BinaryIO, limit: int) -> Image.Image:
    """Open an image of at most `limit` pixels, which replaces Pillow's own limit.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has more pixels or is in no readable format.
    """
    with _open_lock:
        pillow_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(file, formats=readable_formats())
        except UnidentifiedImageError:
            raise ValueError(why_unknown(file)) from None
        finally:
            Image.MAX_IMAGE_PIXELS = pillow_limit
    width, height = image.size
    if width * height > limit:
        raise ValueError(
            f"its {width} x {height} pixels exceed the limit of {limit:,}; to read it, set the "
            f"environment variable {LIMIT} to a larger number"
        )
    return image


def is_broken_image(error: UserError) -> bool:
    """Return whether `read_image` failed because of the file's content.

    A missing file, a lack of memory or a refusal by the system may be gone in the next run.
    """
    cause = error.__cause__
    by_system = isinstance(cause, OSError) and cause.errno is not None
    return not (by_system or isinstance(cause, MemoryError))
