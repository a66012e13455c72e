"""CLIP's vision transformer, with OpenAI's attribute and parameter names."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .errors import ImageSizeError
from .transformer import LayerNorm, Transformer


def check_image_size(images: Tensor, resolution: int) -> None:
    """Refuse images that do not fit the position embeddings.

    Raises:
        ImageSizeError: height or width is not `resolution`.
    """
    height, width = images.shape[-2:]
    if (height, width) != (resolution, resolution):
        raise ImageSizeError(
            f"The images are {height} x {width}, but this image encoder takes "
            f"{resolution} x {resolution}; resize them."
        )


class VisionTransformer(nn.Module):
    """ViT (Dosovitskiy et al., ICLR 2021) with a norm before the blocks and a linear projection.

    Attributes:
        input_resolution: side of the images in pixels.
        output_dim: E, the width of the features.
    """

    def __init__(
        self,
        input_resolution: int,
        patch_size: int,
        width: int,
        layers: int,
        heads: int,
        output_dim: int,
        activation: str = "quick_gelu",
    ) -> None:
        super().__init__()
        self.input_resolution = input_resolution
        self.output_dim = output_dim
        self.conv1 = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=False)

        scale = width**-0.5
        positions = (input_resolution // patch_size) ** 2 + 1
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(positions, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, layers, heads, activation=activation)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, output_dim))

    def embed(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch tokens channels"]:
        """Return class token and patches with their positions, as they enter `ln_pre`.

        Raises:
            ImageSizeError: the images are not `input_resolution` pixels wide and high.
        """
        check_image_size(images, self.input_resolution)
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        cls = self.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        return torch.cat([cls, patches], dim=1) + self.positional_embedding.to(patches.dtype)

    def _tokens(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch tokens channels"]:
        x = self.transformer(self.ln_pre(self.embed(images)).transpose(0, 1))
        return x.transpose(0, 1)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch embed"]:
        """Return the features of the images at the class token, not normalised."""
        return self.ln_post(self._tokens(images)[:, 0]) @ self.proj

    def forward_local(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch tokens embed"]:
        """Return the features at the class token (first) and at every patch, not normalised."""
        return self.ln_post(self._tokens(images)) @ self.proj
