"""CLIP's ModifiedResNet, with OpenAI's attribute and parameter names.

CLIP (Radford et al., ICML 2021), section 2.4: a stem of three convolutions, average pooling before
every strided convolution (anti-aliasing), and attention pooling at the end.
"""

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .vision_transformer import check_image_size


class Bottleneck(nn.Module):
    """Residual block that strides by average pooling, in the branch and in the shortcut."""

    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        outplanes = planes * self.expansion
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu2 = nn.ReLU(inplace=True)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(planes, outplanes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outplanes)
        self.relu3 = nn.ReLU(inplace=True)
        self.downsample = None
        if stride > 1 or inplanes != outplanes:
            # The names "-1", "0", "1" are those of the published state dicts.
            shortcut = [
                ("-1", nn.AvgPool2d(stride)),
                ("0", nn.Conv2d(inplanes, outplanes, 1, bias=False)),
                ("1", nn.BatchNorm2d(outplanes)),
            ]
            self.downsample = nn.Sequential(OrderedDict(shortcut))

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """Run the block."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(self.avgpool(out)))
        return self.relu3(out.add_(identity))


class AttentionPool2d(nn.Module):
    """Attention pooling of a feature map: the query is the mean over all positions."""

    def __init__(self, side: int, width: int, heads: int, output_dim: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(side**2 + 1, width) / width**0.5)
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, output_dim)

    def _split(
        self, x: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch heads tokens head"]:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _pool(
        self, feature_map: Float[Tensor, "batch width height side"], queries: int | None
    ) -> Float[Tensor, "batch queries embed"]:
        x = feature_map.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)
        x = x + self.positional_embedding.to(x.dtype)
        mixed = functional.scaled_dot_product_attention(
            self._split(self.q_proj(x[:, :queries])),
            self._split(self.k_proj(x)),
            self._split(self.v_proj(x)),
        )
        return self.c_proj(mixed.transpose(1, 2).flatten(2))

    def forward(
        self, feature_map: Float[Tensor, "batch width height side"]
    ) -> Float[Tensor, "batch embed"]:
        """Return the pooled feature."""
        return self._pool(feature_map, 1)[:, 0]

    def forward_local(
        self, feature_map: Float[Tensor, "batch width height side"]
    ) -> Float[Tensor, "batch tokens embed"]:
        """Return the pooled feature (first) and that of every position."""
        return self._pool(feature_map, None)


class ModifiedResNet(nn.Module):
    """The image encoder of the RN models.

    Attributes:
        input_resolution: side of the images in pixels.
        output_dim: E, the width of the features.
    """

    def __init__(
        self,
        layers: tuple[int, int, int, int],
        output_dim: int,
        heads: int,
        input_resolution: int,
        width: int,
    ) -> None:
        super().__init__()
        self.input_resolution = input_resolution
        self.output_dim = output_dim

        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu3 = nn.ReLU(inplace=True)
        self.avgpool = nn.AvgPool2d(2)

        self.layer1 = _stage(width, width, layers[0], stride=1)
        self.layer2 = _stage(width * 4, width * 2, layers[1], stride=2)
        self.layer3 = _stage(width * 8, width * 4, layers[2], stride=2)
        self.layer4 = _stage(width * 16, width * 8, layers[3], stride=2)
        self.attnpool = AttentionPool2d(input_resolution // 32, width * 32, heads, output_dim)

    @torch.no_grad()
    def initialize_parameters(self) -> None:
        """Initialise the attention pooling, and every residual branch with zero."""
        pool = self.attnpool
        for projection in (pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj):
            nn.init.normal_(projection.weight, std=pool.c_proj.in_features**-0.5)
        for module in self.modules():
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)

    @torch.no_grad()
    def fold_batch_norms(self) -> None:
        """Fold every BatchNorm into the convolution before it, for inference.

        This changes the state dict; the features stay the same up to rounding.
        """
        blocks = [module for module in self.modules() if isinstance(module, Bottleneck)]
        for block in (self, *blocks):
            for number in (1, 2, 3):
                _fold(block, f"conv{number}", f"bn{number}")
        for block in blocks:
            if block.downsample is not None:
                _fold(block.downsample, "0", "1")

    def _feature_map(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch channels side side"]:
        check_image_size(images, self.input_resolution)
        x = self.relu1(self.bn1(self.conv1(images)))
        x = self.relu2(self.bn2(self.conv2(x)))
        x = self.avgpool(self.relu3(self.bn3(self.conv3(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch embed"]:
        """Return the pooled features of the images, not normalised."""
        return self.attnpool(self._feature_map(images))

    def forward_local(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch tokens embed"]:
        """Return the pooled feature (first) and that of every position, not normalised."""
        return self.attnpool.forward_local(self._feature_map(images))


def _stage(inplanes: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    rest = (Bottleneck(planes * Bottleneck.expansion, planes) for _ in range(1, blocks))
    return nn.Sequential(Bottleneck(inplanes, planes, stride), *rest)


def _fold(parent: nn.Module, conv: str, norm: str) -> None:
    convolution, batch_norm = parent.get_submodule(conv), parent.get_submodule(norm)
    if isinstance(convolution, nn.Conv2d) and isinstance(batch_norm, nn.BatchNorm2d):
        setattr(parent, conv, fuse_conv_bn_eval(convolution, batch_norm))
        setattr(parent, norm, nn.Identity())
