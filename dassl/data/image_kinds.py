"""Which files are images: formats by content, and suffixes where a folder is listed.

This is the only list of suffixes. HEIC, which phones write, needs the extra pillow-heif.
"""

import importlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import BinaryIO

import PIL
from PIL import Image, features

# What a file holds decides, not its suffix, and Pillow knows kinds that no dataset has: for an EPS
# file it starts Ghostscript, which runs the program in it.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".bmp", ".gif"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
)
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
HEIF_ADVICE = "HEIC needs the package pillow-heif (pip install pillow-heif)"
AVIF_ADVICE = "AVIF needs Pillow 11.3 or newer (pip install --upgrade pillow)"
# "ftyp" and one of these stand at the beginning of the two kinds that Pillow may lack.
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")


def reads_heif() -> bool:
    """Whether HEIC images can be read here."""
    return importlib.util.find_spec("pillow_heif") is not None


def is_image(name: str) -> bool:
    """Whether a file is an image by its name, HEIC included; hidden files are not."""
    name = Path(name).name.lower()
    return name.endswith(SUFFIXES + HEIF_SUFFIXES) and not name.startswith(".")


def lacks_reader(name: str) -> bool:
    """Whether a file is a HEIC image by its name, and none can be read here."""
    return name.lower().endswith(HEIF_SUFFIXES) and not reads_heif()


@cache
def readable_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that can be read here."""
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    if "AVIF" in formats and not features.check("avif"):
        formats.remove("AVIF")
    if reads_heif():
        importlib.import_module("pillow_heif").register_heif_opener()
        formats.append("HEIF")
    return tuple(formats)


def why_unknown(file: BinaryIO) -> str:
    """What to say of a file that none of the readable formats fits.

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
    return f"it is no image of the kinds {', '.join(known)}"


def _kind_of(head: bytes) -> str:
    """The readable format that a file begins like; "" for none."""
    for name in readable_formats():
        accepts = Image.OPEN[name][1]
        if len(head) >= 16 and accepts is not None and accepts(head[:16]) is True:
            return name
    return ""
