"""Conversion of all pixel formats that Pillow reads to 8-bit RGB."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

_WIDE = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # one channel of more than 8 bits
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_WHITE_IS_ZERO, _SIGNED = 0, 2


def to_rgb(image: Image.Image, as_viewed: bool = False) -> Image.Image:
    """Convert to mode RGB.

    16-bit integers are scaled to 8 bits, floats range from 0 (black) to 1 (white). 32-bit integers
    are read as 8 bits if none exceeds 255, else as 16.

    Args:
        image: an image in any mode.
        as_viewed: rotate the image by its EXIF orientation and put white behind transparent pixels,
            as image viewers do. Otherwise convert the stored pixels, as `convert("RGB")` does.

    Raises:
        ValueError: pixels are outside of the accepted range; the message states both ranges.
    """
    image.load()
    orientation = _orientation(image) if as_viewed else 1
    if image.mode in _WIDE or _has_signed_bytes(image):
        image = _to_8_bits(image)
    if image.mode in ("La", "RGBa"):  # premultiplied alpha
        image = image.convert(image.mode.upper())
    if as_viewed:
        rgb = _on_white(image)
    else:
        image.info.pop("transparency", None)  # Pillow warns of it for some palettes
        rgb = image.convert("RGB")
    turn = _TURNS.get(orientation)
    return rgb if turn is None else rgb.transpose(turn)


def _has_signed_bytes(image: Image.Image) -> bool:
    """Return whether a TIFF's grey values range from -128 to 127; Pillow reads them as 0 to 255."""
    return image.mode == "L" and _tag(image, _SAMPLE_FORMAT) == _SIGNED


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata makes Pillow raise anything; it is ignored
        return 1


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    transparent = image.info.get("transparency")
    if isinstance(transparent, tuple) and max(transparent) > 255:
        # The transparent colour of a 16-bit PNG; Pillow reads only the upper 8 bits of the pixels.
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale a single channel to 8 bits: mode L, or LA if one of its values is transparent."""
    pixels = np.asarray(image)
    if _tag(image, _BITS) == 32 and image.mode == "I" and _tag(image, _SAMPLE_FORMAT) != _SIGNED:
        pixels = pixels.view(np.uint32)
    if image.mode == "L":
        pixels = pixels.view(np.int8)
    lowest, highest = pixels.min().item(), pixels.max().item()
    white = _white(image, lowest, highest)
    grey = np.rint(pixels.astype(np.float32) * np.float32(255 / white)).astype(np.uint8)
    if _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        opacity: NDArray[Any] = np.where(pixels == transparent, 0, 255).astype(np.uint8)
        return Image.fromarray(np.stack([grey, opacity], axis=-1))
    return Image.fromarray(grey)


def _white(image: Image.Image, lowest: float, highest: float) -> int:
    """Return the value of white; black is 0."""
    if image.mode == "F":
        if lowest >= 0 and highest <= 1:  # False for NaN
            return 1
        raise _range_error(image, lowest, highest, "floats from 0 to 1")
    bits = _bits(image)
    if bits is None:
        bits = 8 if lowest >= 0 and highest < 2**8 else 16
    white = 2**bits - 1
    if lowest >= 0 and highest <= white:
        return white
    raise _range_error(image, lowest, highest, f"integers from 0 to {white}")


def _range_error(image: Image.Image, lowest: float, highest: float, accepted: str) -> ValueError:
    nan = math.isnan(lowest)
    found = "are not all numbers (NaN)" if nan else f"lie between {lowest:.7g} and {highest:.7g}"
    return ValueError(
        f"its pixels (mode {image.mode}) {found}, but {accepted} are accepted; convert it to a PNG "
        "of 8 or 16 bits"
    )


def _bits(image: Image.Image) -> int | None:
    """Return the bits of a positive value; None for 32-bit files, which differ in their range."""
    if image.mode == "L":
        return 7
    if image.mode != "I":
        return _tag(image, _BITS) or 16
    if image.format in ("PNG", "PPM"):  # older versions of Pillow read 16 bits as this mode
        return 16
    bits = _tag(image, _BITS)
    if bits is None or bits > 16:
        return None
    return bits - (_tag(image, _SAMPLE_FORMAT) == _SIGNED)


def _tag(image: Image.Image, number: int) -> int | None:
    """Return a TIFF tag, or None for other files and absent tags."""
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) else value
