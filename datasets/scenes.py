"""Scenes: a drawing with random pose, size and colour on a random background.

The images of the bundled benchmark are generated, not stored. A scene depends only on (style,
concept, index), whose SHA-256 seeds a PCG64. The raw output of PCG64 is stable, and all later steps
are element-wise float32 arithmetic without sums or trigonometry. So every machine and every version
of Python and numpy generates the same bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

EDGE = 64  # pixels of a scene
DRAWING = 72  # pixels of a drawing
KNOBS = 40  # uniform random numbers (parameters) of a scene
GRID = 6  # nodes per side of the blotches
_RANDOM_WORDS = KNOBS + (3 * GRID * GRID + 3 * EDGE * EDGE) // 8 + 1
_SMALL_BELOW = 50.0  # pixels; smaller drawings are sampled from a half-size copy
_CHUNK = 16  # scenes composed together, so that temporary arrays fit in the CPU's cache


@dataclass(frozen=True)
class Atlas:
    """Drawings prepared for sampling.

    Attributes:
        pixels: premultiplied RGBA as one word per pixel, full size followed by half size.
        dark: whether a drawing is dark and needs a light background.
        pale: whether a drawing is nearly white and needs a darker background.
    """

    pixels: np.ndarray
    dark: np.ndarray
    pale: np.ndarray

    @classmethod
    def of(cls, drawings: UInt8[np.ndarray, "n 72 72 4"]) -> Atlas:
        """Prepare straight-alpha RGBA drawings."""
        wide = drawings.astype(np.uint32)
        alpha = wide[..., 3:]
        wide[..., :3] = (wide[..., :3] * alpha + 127) // 255
        half = wide[:, ::2, ::2] + wide[:, 1::2, ::2] + wide[:, ::2, 1::2] + wide[:, 1::2, 1::2]
        count = len(drawings)
        flat = [level.astype(np.uint8).reshape(count, -1, 4) for level in (wide, (half + 2) // 4)]
        pixels = np.concatenate(flat, axis=1).view(np.uint32)[..., 0]
        weights = np.array([77, 150, 29], dtype=np.uint32)
        luminance = (wide[..., :3] * weights).sum(axis=(1, 2, 3), dtype=np.uint64)
        mean = luminance // np.maximum(alpha.sum(axis=(1, 2, 3), dtype=np.uint64), 1)
        return cls(pixels, mean < 90, mean > 215)

    def __getitem__(self, rows: np.ndarray | slice) -> Atlas:
        return Atlas(self.pixels[rows], self.dark[rows], self.pale[rows])

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True)
class Chance:
    """The random numbers of a batch of scenes."""

    knobs: Float[np.ndarray, "b 40"]
    blotches: UInt8[np.ndarray, "b 6 6 3"]
    grain: UInt8[np.ndarray, "b 64 64 3"]

    @classmethod
    def of(cls, keys: list[str]) -> Chance:
        """Return random numbers that depend only on the keys."""
        words = np.stack([_words(key) for key in keys])
        knobs = (words[:, :KNOBS] >> np.uint64(40)).astype(np.float32) / np.float32(2**24)
        rest = words[:, KNOBS:].astype("<u8").view(np.uint8)
        cut = 3 * GRID * GRID
        blotches = rest[:, :cut].reshape(-1, GRID, GRID, 3)
        grain = rest[:, cut : cut + 3 * EDGE * EDGE].reshape(-1, EDGE, EDGE, 3)
        return cls(knobs, blotches, grain)

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int) -> Chance:
        """Draw random numbers from a generator, for an endless stream of training scenes."""
        return cls(
            rng.random((count, KNOBS), dtype=np.float32),
            rng.integers(0, 256, (count, GRID, GRID, 3), dtype=np.uint8),
            rng.integers(0, 256, (count, EDGE, EDGE, 3), dtype=np.uint8),
        )


def _words(key: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little")
    return np.random.PCG64(seed).random_raw(_RANDOM_WORDS)


def scene_key(style: str, concept: str, index: int) -> str:
    """Return the string whose hash seeds a scene."""
    return f"{style}/{concept}/{index}"


def compose(atlas: Atlas, chance: Chance) -> UInt8[np.ndarray, "b 64 64 3"]:
    """Return one RGB scene for each drawing with its random numbers."""
    out = np.empty((len(atlas), EDGE, EDGE, 3), dtype=np.uint8)
    for start in range(0, len(atlas), _CHUNK):
        rows = slice(start, start + _CHUNK)
        out[rows] = _compose(
            atlas[rows], chance.knobs[rows].T, chance.blotches[rows], chance.grain[rows]
        )
    return out


def _between(u: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale uniform numbers in [0, 1) to [low, high), with a shape that broadcasts over pixels."""
    return (np.float32(low) + u * np.float32(high - low))[:, None, None]


def _compose(
    atlas: Atlas, u: np.ndarray, blotches: np.ndarray, grain: np.ndarray
) -> UInt8[np.ndarray, "b 64 64 3"]:
    # Channels come before pixels, so that numpy's inner loops have 64 steps, not 3.
    drawing = _recoloured(_posed(atlas, u[:8]), u[8:16])
    picture = _background(atlas, u[16:32], blotches)
    picture *= np.float32(1) - drawing[:, 3:]
    picture += drawing[:, :3]
    strength = _between(u[32] * u[32], 0.0, 0.12)[:, None]
    noise = grain.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    noise *= np.float32(1 / 255)
    noise -= np.float32(0.5)
    noise *= strength
    picture += noise
    np.clip(picture, 0, 1, out=picture)
    picture *= np.float32(255)
    picture += np.float32(0.5)
    return np.ascontiguousarray(picture.astype(np.uint8).transpose(0, 2, 3, 1))


def _posed(atlas: Atlas, u: np.ndarray) -> Float[np.ndarray, "b 4 64 64"]:
    """Rotate, scale and shift the premultiplied drawings by bilinear sampling."""
    half_tan = _between(u[0], -0.18, 0.18)  # tangent of half the angle: up to 20 degrees either way
    norm = np.float32(1) + half_tan * half_tan
    cos, sin = (np.float32(2) - norm) / norm, np.float32(2) * half_tan / norm
    size = _between(u[1], 0.55, 0.97) * np.float32(EDGE)
    aspect = _between(u[2], 0.88, 1.14)
    slack = (np.float32(EDGE) - size) / np.float32(2) + np.float32(3)
    grid = np.arange(EDGE, dtype=np.float32) - np.float32((EDGE - 1) / 2)
    x = grid[None, None, :] - slack * _between(u[3], -1, 1)
    y = grid[None, :, None] - slack * _between(u[4], -1, 1)
    small = size < np.float32(_SMALL_BELOW)
    width = np.where(small, np.float32(DRAWING // 2), np.float32(DRAWING))
    zoom, middle = width / size, (width - np.float32(1)) / np.float32(2)
    last = width - np.float32(1.001)  # the rim is transparent, so clipped pixels are, too
    across = np.clip((x * cos + y * sin) * zoom * aspect + middle, 0, last)
    down = np.clip((y * cos - x * sin) * (zoom / aspect) + middle, 0, last)
    left, top = across.astype(np.int32), down.astype(np.int32)
    stride = width.astype(np.int32)
    words = atlas.pixels.shape[1]
    row = np.arange(len(atlas), dtype=np.int32)[:, None, None] * np.int32(words)
    index = row + np.where(small, np.int32(DRAWING * DRAWING), np.int32(0)) + top * stride + left
    return _bilinear(atlas.pixels.reshape(-1), index, stride, across - left, down - top)


def _bilinear(
    pixels: np.ndarray, index: np.ndarray, stride: np.ndarray, fx: np.ndarray, fy: np.ndarray
) -> Float[np.ndarray, "b 4 64 64"]:
    def at(where: np.ndarray) -> np.ndarray:
        words = pixels.take(where)
        channels = [(words >> np.uint32(8 * k)) & np.uint32(255) for k in range(4)]
        return np.stack(channels, axis=1).astype(np.float32)

    fx, fy = fx[:, None], fy[:, None]
    above = at(index)
    above += (at(index + 1) - above) * fx
    below = at(index + stride)
    below += (at(index + stride + 1) - below) * fx
    above += (below - above) * fy
    above *= np.float32(1 / 255)
    return above


def _recoloured(
    drawing: Float[np.ndarray, "b 4 64 64"], u: np.ndarray
) -> Float[np.ndarray, "b 4 64 64"]:
    """Change saturation, gain per channel and lift in place, but keep colours recognisable."""
    rgb, alpha = drawing[:, :3], drawing[:, 3:]
    grey = rgb[:, 0] * np.float32(0.3) + rgb[:, 1] * np.float32(0.59)
    grey = (grey + rgb[:, 2] * np.float32(0.11))[:, None]
    rgb -= grey
    rgb *= _between(u[0], 0.45, 1.25)[:, None]
    rgb += grey
    level = _between(u[1], 0.7, 1.2)
    gain = np.stack([level * _between(k, 0.88, 1.12) for k in u[2:5]], axis=1)
    rgb *= gain
    rgb += alpha * _between(u[5], -0.08, 0.18)[:, None]
    np.clip(rgb, 0, alpha, out=rgb)
    return drawing


def _background(
    atlas: Atlas, u: np.ndarray, blotches: np.ndarray
) -> Float[np.ndarray, "b 3 64 64"]:
    """Return a pattern of two colours, overlaid with soft blotches."""
    first, second = (u[k : k + 3].T[:, :, None, None] for k in (0, 3))
    likeness = _between(u[13], 0.3, 1)[:, None]
    second = second + likeness * (first - second)
    dark, pale = (flags[:, None, None, None] for flags in (atlas.dark, atlas.pale))
    first, second = (
        np.where(pale, np.float32(0.7) * c, np.where(dark, np.float32(0.55) * (c + 0.8), c))
        for c in (first, second)
    )
    picture = first + (second - first) * _pattern(u[6:])[:, None]
    picture += _blotches(blotches) * _between(u[12] * u[12], 0.0, 0.4)[:, None]
    return np.clip(picture, np.where(dark, np.float32(0.4), np.float32(0)), 1)


def _pattern(u: np.ndarray) -> Float[np.ndarray, "b 64 64"]:
    """Return the share of the second colour: none, gradient, stripes, checkerboard or disc."""
    grid = (np.arange(EDGE, dtype=np.float32) - np.float32(EDGE / 2)) / np.float32(EDGE)
    dx, dy = _between(u[0], -1, 1), _between(u[1], -1, 1)
    p = grid[None, None, :] * dx + grid[None, :, None] * dy
    q = grid[None, :, None] * dx - grid[None, None, :] * dy
    count = _between(u[2], 2, 9)
    shift = _between(u[3], 0, 1)
    kind = _between(u[4], 0, 7).astype(np.int32)  # three of seven have a single colour
    strips, rows = (np.floor(k * count + shift) % np.float32(2) for k in (p, q))
    x, y = grid[None, None, :] - dx * np.float32(0.5), grid[None, :, None] - dy * np.float32(0.5)
    disc = (x * x + y * y < (shift * np.float32(0.5)) ** 2).astype(np.float32)
    kinds = [np.clip(p + shift, 0, 1), strips, np.abs(strips - rows), disc]
    return np.select([kind == k for k in range(4)], kinds, np.float32(0))


def _blotches(blotches: UInt8[np.ndarray, "b 6 6 3"]) -> Float[np.ndarray, "b 3 64 64"]:
    """Return smooth noise in [-0.5, 0.5): a coarse grid, bilinearly interpolated."""
    nodes = blotches.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    nodes = nodes * np.float32(1 / 256) - np.float32(0.5)
    at = np.arange(EDGE, dtype=np.float32) * np.float32((GRID - 1) / EDGE)
    left = at.astype(np.int32)
    share = at - left
    step = nodes[:, :, left + 1] - nodes[:, :, left]
    rows = nodes[:, :, left] + step * share[:, None]
    return rows[..., left] + (rows[..., left + 1] - rows[..., left]) * share
