"""Supported image formats (detected by content) and file suffixes (for listing folders).

HEIC, which phones write, needs the optional package pillow-heif.
"""

import importlib
import importlib.util
import os
from functools import cache
from typing import BinaryIO

import PIL
from PIL import Image, features

# Pillow detects the format by content and supports more than datasets need: for an EPS file, it
# would start Ghostscript, which executes the program in the file.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".bmp", ".gif"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
)
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
HEIF_ADVICE = "HEIC needs the package pillow-heif (pip install pillow-heif)"
AVIF_ADVICE = "AVIF needs Pillow 11.3 or newer (pip install --upgrade pillow)"
# Files of the two formats that Pillow may not support start with "ftyp" and one of these brands.
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")


def reads_heif() -> bool:
    """Return whether HEIC images can be read here."""
    return importlib.util.find_spec("pillow_heif") is not None


def is_image(name: str) -> bool:
    """Return whether a file name has an image suffix (HEIC included) and is not hidden."""
    name = os.path.basename(name).lower()  # noqa: PTH119 (a million Path objects are slow)
    return name.endswith(SUFFIXES + HEIF_SUFFIXES) and not name.startswith(".")


def is_unreadable_heic(name: str) -> bool:
    """Return whether a file name has a HEIC suffix and HEIC cannot be read here."""
    return name.lower().endswith(HEIF_SUFFIXES) and not reads_heif()


@cache
def readable_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that can be read here."""
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    if "AVIF" in formats and not features.check("avif"):
        formats.remove("AVIF")
    if reads_heif():
        importlib.import_module("pillow_heif").register_heif_opener()
        formats.append("HEIF")
    return tuple(formats)


def why_unknown(file: BinaryIO) -> str:
    """Return the reason why a file is in none of the readable formats, for an error message.

    Raises:
        OSError: the file cannot be read.
    """
    file.seek(0)
    head = file.read(32)
    known, brand = readable_formats(), head[8:12] if head[4:8] == b"ftyp" else b""
    if brand in _HEIF_BRANDS and b"avif" not in head and "HEIF" not in known:
        return HEIF_ADVICE
    if (brand in _AVIF_BRANDS or (brand and b"avif" in head)) and "AVIF" not in known:
        return AVIF_ADVICE
    kind = _kind_of(head)
    if kind:
        return (
            f"it is damaged, or {kind} of a kind that Pillow {PIL.__version__} does not read; "
            "replace it, or convert it to a PNG of 8 or 16 bits"
        )
    return f"it is not an image in one of the formats {', '.join(known)}"


def _kind_of(head: bytes) -> str:
    """Return the readable format that the first bytes of a file match, or ""."""
    for name in readable_formats():
        accepts = Image.OPEN[name][1]
        if len(head) >= 16 and accepts is not None and accepts(head[:16]) is True:
            return name
    return ""
