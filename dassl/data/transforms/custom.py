"""Transforms that torchvision does not have."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from safeio.errors import UserError

from .bounded import resize


@dataclass
class Random2DTranslation:
    """With probability `p`, resize to 9/8 of the size and crop at random; else only resize."""

    height: int
    width: int
    p: float = 0.5
    interpolation: InterpolationMode = InterpolationMode.BILINEAR

    def __call__(self, img: Image.Image) -> Image.Image:
        """Transform one image."""
        if random.random() > self.p:
            return resize(img, (self.height, self.width), self.interpolation)
        height, width = round(self.height * 1.125), round(self.width * 1.125)
        img = resize(img, (height, width), self.interpolation)
        left = random.randint(0, width - self.width)
        top = random.randint(0, height - self.height)
        return F.crop(img, top, left, self.height, self.width)


class ToNormalizedTensor:
    """torchvision's ToTensor and Normalize in one step, with bitwise equal results.

    It saves their copies and checks, which take longer than the arithmetic for small images.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != 3 or len(std) != 3 or not all(std):
            raise UserError(
                "INPUT.PIXEL_MEAN and INPUT.PIXEL_STD take three numbers, the latter above 0, not "
                f"{list(mean)} and {list(std)}"
            )
        self.mean = torch.tensor(mean).view(3, 1, 1)
        self.std = torch.tensor(std).view(3, 1, 1)

    def __repr__(self) -> str:
        mean, std = self.mean.flatten().tolist(), self.std.flatten().tolist()
        return f"ToNormalizedTensor(mean={mean}, std={std})"

    def __call__(self, img: Image.Image) -> Float[Tensor, "3 h w"]:
        """Transform one image."""
        pixels = torch.from_numpy(np.array(img)).permute(2, 0, 1)
        scaled = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return scaled.div_(255).sub_(self.mean).div_(self.std)


@dataclass
class InstanceNormalization:
    """Normalise every channel of an image to mean 0 and standard deviation 1."""

    def __call__(self, img: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
        """Transform one image."""
        flat = img.reshape(len(img), -1)
        mean, std = flat.mean(1).view(-1, 1, 1), flat.std(1).view(-1, 1, 1)
        return (img - mean) / (std + 1e-8)


@dataclass
class Cutout:
    """Set `n_holes` random squares of an image, with sides of `length` pixels, to zero."""

    n_holes: int = 1
    length: int = 16

    def __call__(self, img: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
        """Transform one image."""
        img = img.clone()
        height, width = img.shape[1:]
        half = self.length // 2
        for _ in range(self.n_holes):
            y, x = random.randrange(height), random.randrange(width)
            img[:, max(y - half, 0) : y + half, max(x - half, 0) : x + half] = 0.0
        return img


@dataclass
class GaussianNoise:
    """Add Gaussian noise with probability 0.5."""

    mean: float = 0.0
    std: float = 0.15

    def __call__(self, img: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
        """Transform one image."""
        if random.random() > 0.5:
            return img
        return img + torch.randn_like(img) * self.std + self.mean
