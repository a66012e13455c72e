"""Every kind of pixels in image files gives the colours that a viewer shows."""

import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from dassl.data.broken_images import find_broken
from dassl.data.images import read_image
from dassl.data.pixels import to_rgb
from safeio.errors import UserError

CASES = Path(__file__).parents[1] / "data" / "images"
GREY = np.asarray(Image.open(CASES / "gray.png")).astype(int)
RAMP = np.asarray(Image.open(CASES / "g16.png")).astype(int)  # the same in 16 bits
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def pixels(path: Path, decode: str = "as_stored") -> NDArray[np.int64]:
    image = read_image(str(path), decode)
    assert image.mode == "RGB"
    return np.asarray(image).astype(np.int64)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_image(str(path))
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def check_grey(path: Path, decode: str = "as_stored") -> None:
    """All three channels are those of gray.png, to within 1 of 255."""
    assert np.abs(pixels(path, decode) - GREY[..., None]).max() <= 1


def png(
    path: Path, depth: int, colour: int, rows: NDArray[Any], *chunks: tuple[bytes, bytes]
) -> Path:
    """Write a PNG of a bit depth and colour type (0 grey, 2 RGB, 4 grey and alpha, 6 RGBA)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width = rows.shape[:2]
    raw = rows.astype(f">u{depth // 8}").reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in raw)
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


def tiff(path: Path, values: NDArray[Any], order: Literal["<", ">"] = "<", **tags: int) -> Path:
    """Write an uncompressed TIFF of one channel in the array's own type."""
    values = values.astype(values.dtype.newbyteorder(order))
    data, bits = values.tobytes(), 8 * values.dtype.itemsize
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    height, width = values.shape
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: tags.get("photometric", 1)}
    entries |= {273: 8, 277: 1, 278: height, 279: len(data), 339: kind}
    if "orientation" in tags:
        entries[274] = tags["orientation"]
    ifd = struct.pack(f"{order}H", len(entries))
    for tag, value in sorted(entries.items()):
        ifd += struct.pack(f"{order}HHII", tag, 4, 1, value)
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(f"{order}HI", 42, 8 + len(data))
    path.write_bytes(head + data + ifd + bytes(4))
    return path


# More than 8 bits a channel


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u2", "i2", "u4", "i4", "f4"])
def test_a_tiff_of_any_depth_equals_the_8_bit_picture(
    kind: str, order: Literal["<", ">"], tmp_path: Path
) -> None:
    values = {"f4": RAMP / 65535, "i2": RAMP // 2}.get(kind, RAMP).astype(kind)
    path = tiff(tmp_path / "scan.tif", values, order)
    if (kind, order) == ("u4", ">"):  # which Pillow reads in the machine's order only
        assert "convert it to a PNG" in refusal(path)
    else:
        check_grey(path)


def test_files_of_other_programs_equal_the_8_bit_picture(tmp_path: Path) -> None:
    for dtype, scale in ((np.uint16, 1), (np.int32, 1), (np.float32, 65535)):
        for compression in (None, "tiff_lzw", "tiff_deflate"):
            image = Image.fromarray((RAMP / scale).astype(dtype))
            image.save(tmp_path / "a.tif", compression=compression)
            check_grey(tmp_path / "a.tif")
    opaque = np.full_like(RAMP, 65535)
    check_grey(CASES / "g16.png")
    check_grey(png(tmp_path / "a.png", 16, 4, np.stack([RAMP, opaque], axis=-1)), "as_viewed")
    check_grey(png(tmp_path / "a.png", 16, 2, np.stack([RAMP] * 3, axis=-1)))
    check_grey(png(tmp_path / "a.png", 16, 6, np.stack([RAMP] * 3 + [opaque], axis=-1)))
    height, width = RAMP.shape
    for peak in (65535, 4095, 1023):
        values = np.rint(RAMP * (peak / 65535)).astype(">u2").tobytes()
        (tmp_path / "a.pgm").write_bytes(b"P5 %d %d %d\n" % (width, height, peak) + values)
        check_grey(tmp_path / "a.pgm")
    floats = (RAMP[::-1] / 65535).astype("<f4").tobytes()  # rows from the bottom
    (tmp_path / "a.pfm").write_bytes(b"Pf\n%d %d\n-1.0\n" % (width, height) + floats)
    check_grey(tmp_path / "a.pfm")
    for inverted in ((65535 - RAMP).astype(np.uint16), (1 - RAMP / 65535).astype(np.float32)):
        check_grey(tiff(tmp_path / "a.tif", inverted, photometric=0))


def test_ranges_of_special_cases(tmp_path: Path) -> None:
    """Signed bytes, integers without large values, and 16 bits that older Pillows read as 32."""
    path = tiff(tmp_path / "a.tif", np.array([[0, 64, 127]], dtype="i1"))
    assert np.asarray(read_image(str(path)))[0, :, 0].tolist() == [0, 129, 255]
    Image.open(CASES / "gray.png").convert("I").save(path)
    assert np.array_equal(pixels(path)[..., 0], GREY)
    dark = Image.fromarray((RAMP // 300).astype(np.int32))
    dark.format = "PNG"
    assert np.asarray(to_rgb(dark)).max() == 1


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (([[0, 255]], "float32"), "mode F) lie between 0 and 255, but floats from 0 to 1"),
        (([[-0.5, 1]], "float32"), "mode F) lie between -0.5 and 1"),
        (([[0.5, np.nan]], "float32"), "mode F) are not all numbers (NaN)"),
        (([[0.5, np.inf]], "float32"), "mode F) lie between 0.5 and inf"),
        (([[0, 65536]], "int32"), "mode I) lie between 0 and 65536, but integers from 0 to 65535"),
        (([[-1, 70]], "int32"), "mode I) lie between -1 and 70, but integers from 0 to 65535"),
        (([[0, 2**32 - 1]], "uint32"), "mode I) lie between 0 and 4.294967e+09"),
        (([[-1, 70]], "int16"), "mode I) lie between -1 and 70, but integers from 0 to 32767"),
        (([[-1, 70]], "int8"), "mode L) lie between -1 and 70, but integers from 0 to 127"),
    ],
)
def test_unknown_ranges_are_refused(
    values: tuple[list[list[float]], str], found: str, tmp_path: Path
) -> None:
    path = tiff(tmp_path / "depth.tif", np.array(*values))
    message = refusal(path)
    assert found in message and "convert it to a PNG" in message
    assert list(find_broken([str(path)], tmp_path / "checks")) == [str(path)]


def test_an_unknown_tiff_is_refused(tmp_path: Path) -> None:
    message = refusal(tiff(tmp_path / "a.tif", np.zeros((2, 2))))
    assert re.search(r"damaged, or TIFF of a kind that Pillow [\d.]+ does not read", message)


# Modes

MODES = ("1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa", "PA")


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow(mode: str) -> None:
    """Black and white halves, opaque."""
    image = Image.new("RGB", (4, 2), "white")
    image.paste("black", (0, 0, 2, 2))
    expected = np.asarray(image).astype(int)
    for step in {"RGBa": ("RGBA",), "PA": ("P",)}.get(mode, ()):
        image = image.convert(step)
    for viewed in (False, True):
        found = np.asarray(to_rgb(image.convert(mode), viewed)).astype(int)
        assert np.abs(found - expected).max() <= 1


def test_byte_orders_and_premultiplied_colours() -> None:
    for mode in ("I;16", "I;16L", "I;16B", "I;16N"):
        for viewed in (False, True):
            image = Image.new(mode, (2, 1))
            image.putpixel((1, 0), 0x8000)
            assert np.asarray(to_rgb(image, viewed)).tolist() == [[[0] * 3, [128] * 3]]
    for mode in ("La", "RGBa"):
        straight = Image.new(mode.upper(), (1, 1), (100,) * (len(mode) - 1) + (128,))
        for viewed, colour in ((False, 100), (True, (100 * 128 + 255 * 127) / 255)):
            found = np.asarray(to_rgb(straight.convert(mode), viewed)).astype(int)
            assert np.abs(found - colour).max() <= 2


def test_ordinary_pictures_are_those_of_pillow(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for mode in ("L", "RGB", "CMYK"):
        image = Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).convert(mode)
        image.save(tmp_path / "a.jpg")
        with Image.open(tmp_path / "a.jpg") as stored:
            expected = np.asarray(stored.convert("RGB"))
        for decode in ("as_viewed", "as_stored"):
            assert np.array_equal(pixels(tmp_path / "a.jpg", decode), expected)


# Transparency


def test_a_black_logo_is_seen_on_white() -> None:
    path = CASES / "black_logo_transparent.png"
    assert pixels(path).max() == 0  # CoOp's convert("RGB") gives this
    opacity = np.asarray(Image.open(path))[..., 3]
    assert np.array_equal(pixels(path, "as_viewed"), 255 - np.stack([opacity] * 3, -1).astype(int))


def test_every_form_of_transparency(tmp_path: Path) -> None:
    """A red and a transparent blue pixel; black and a transparent grey."""
    rgba = Image.new("RGBA", (2, 1), (*RED, 255))
    rgba.putpixel((1, 0), (*BLUE, 0))
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *BLUE])
    palette.putpixel((1, 0), 1)
    rgb = np.array([[RED, BLUE]])
    for suffix in ("png", "webp", "tif"):
        more: Any = {"lossless": True, "exact": True} if suffix == "webp" else {}
        rgba.save(tmp_path / f"rgba.{suffix}", **more)
    palette.save(tmp_path / "palette_index.png", transparency=1)
    palette.save(tmp_path / "palette_bytes.png", transparency=bytes([255, 0]))
    palette.save(tmp_path / "palette.gif", transparency=1)
    png(tmp_path / "colour.png", 8, 2, rgb, (b"tRNS", struct.pack(">HHH", *BLUE)))
    blue = (b"tRNS", struct.pack(">HHH", 0, 0, 0xFF12))
    png(tmp_path / "colour16.png", 16, 2, rgb * 257 - [0, 0, 0xFFFF - 0xFF12] * (rgb > 0), blue)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 8
    for path in files:
        assert pixels(path, "as_viewed").tolist() == [[list(RED), list(WHITE)]], path
        assert pixels(path).tolist() == [[list(RED), list(BLUE)]], path
    for depth, peak in ((8, 255), (16, 65535)):
        path, grey = tmp_path / "grey.png", (b"tRNS", struct.pack(">H", peak // 5))
        png(path, depth, 0, np.array([[0, peak // 5]]), grey)
        assert pixels(path, "as_viewed").tolist() == [[[0] * 3, [255] * 3]]
        assert pixels(path).tolist() == [[[0] * 3, [51] * 3]]
    Image.new("LA", (1, 1), (0, 51)).save(path)
    assert pixels(path, "as_viewed").tolist() == [[[204] * 3]]


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_of_phones_are_upright(orientation: int, tmp_path: Path) -> None:
    upright = Image.open(CASES / "gray.png").crop((0, 0, 40, 24)).convert("RGB")
    upright.paste((250, 20, 20), (0, 0, 16, 8))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for suffix in ("jpg", "png", "webp", "mpo", "avif"):
        path = tmp_path / f"photo.{suffix}"
        more: Any = {"lossless": True} if suffix == "webp" else {"quality": 95}
        stored.save(path, exif=exif.tobytes(), **more)
        found = pixels(path, "as_viewed")
        assert found.shape == (24, 40, 3), suffix
        assert np.abs(found - np.asarray(upright)).mean() < 6, suffix
        with Image.open(path) as image:
            assert np.array_equal(found, np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
            assert np.array_equal(pixels(path), np.asarray(image.convert("RGB")))
    # Pillow itself always turns a TIFF; opened by its path, this one comes out scrambled.
    grey = np.asarray(stored.convert("L")).astype(np.uint16) * 257
    path = tiff(tmp_path / "scan.tif", grey, orientation=orientation)
    for decode in ("as_viewed", "as_stored"):
        assert np.array_equal(pixels(path, decode)[..., 0], np.asarray(upright.convert("L")))


@pytest.mark.parametrize("tail", [b"", b"\xff" * 8, b"MM\0*\0\0\0\x08\xff\xff"])
def test_damaged_metadata_is_ignored(tail: bytes, tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", 8, 0, np.array([[0, 255]]), (b"eXIf", tail))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, for some of them
        assert pixels(path, "as_viewed").tolist() == [[[0] * 3, [255] * 3]]
