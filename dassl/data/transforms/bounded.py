"""Resizing and cropping with bounded memory for images of any shape.

A file of a few hundred bytes may be 400,000 pixels wide and one high. Resized to a short side of
224 pixels, it would take a terabyte, of which the crop uses a strip. These transforms are bitwise
equal to torchvision's for all images whose intermediate results have at most `LARGEST` pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

LARGEST = 2**24  # pixels of an intermediate image, 64 MB; 224 x 224 to 224 x 74,898

_FILTERS = {
    InterpolationMode.NEAREST: Image.Resampling.NEAREST,
    InterpolationMode.BILINEAR: Image.Resampling.BILINEAR,
    InterpolationMode.BICUBIC: Image.Resampling.BICUBIC,
}


def resize(img: Image.Image, size: Sequence[int], interpolation: InterpolationMode) -> Image.Image:
    """Resize an image to (height, width) pixels.

    An image with a very long side is first averaged down to a few times the new size.
    """
    if max(img.size) * max(size) <= LARGEST:
        return F.resize(img, list(size), interpolation=interpolation)
    height, width = size
    return img.resize((width, height), _FILTERS[interpolation], reducing_gap=3.0)


class Resize(T.Resize):
    """torchvision's Resize to a fixed size of (height, width)."""

    def forward(self, img: Image.Image) -> Image.Image:
        """Transform one image."""
        return resize(img, self.size, self.interpolation)


@dataclass
class CentreOfStrip:
    """Crop a very long image to the part that `Resize(size)` and `CenterCrop` use.

    Other images are returned unchanged.

    Attributes:
        size: pixels of the short side after resizing; the crop's sides are not longer.
    """

    size: int

    def __call__(self, img: Image.Image) -> Image.Image:
        """Transform one image."""
        width, height = img.size
        # With at least two squares, the resampling filter has neighbours on both sides.
        longest = min(width, height) * max(LARGEST // self.size**2, 2)
        left, top = (max(side - longest, 0) // 2 for side in (width, height))
        return img if not left + top else img.crop((left, top, width - left, height - top))


class RandomCrop(T.RandomCrop):
    """torchvision's RandomCrop with black padding, without creating the padded image.

    Args:
        size: height and width in pixels.
        padding: pixels on every side; more if the image is smaller than the crop.
    """

    def __init__(self, size: Sequence[int], padding: int) -> None:
        super().__init__(size, padding=padding, pad_if_needed=True)

    def forward(self, img: Image.Image) -> Image.Image:
        """Transform one image."""
        height, width = self.size
        down = self.padding + max(height - img.height - 2 * self.padding, 0)
        across = self.padding + max(width - img.width - 2 * self.padding, 0)
        # get_params reads only the shape, so the tensor needs no memory.
        padded = torch.empty(1, img.height + 2 * down, img.width + 2 * across, device="meta")
        top, left, _, _ = self.get_params(padded, self.size)
        return F.crop(img, top - down, left - across, height, width)
