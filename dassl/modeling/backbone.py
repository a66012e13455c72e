"""Image towers by name: torchvision's ResNets without their last layer."""

from typing import Any

import torchvision
from torch import Tensor, nn

from ..utils import Registry

BACKBONE_REGISTRY = Registry("BACKBONE")


class Backbone(nn.Module):
    """A network from images to feature vectors; a subclass sets `_out_features`."""

    _out_features: int

    @property
    def out_features(self) -> int:
        """Width of the features."""
        return self._out_features


class _ResNet(Backbone):
    def __init__(self, name: str, pretrained: bool) -> None:
        super().__init__()
        weights = "DEFAULT" if pretrained else None
        self.network = torchvision.models.get_model(name, weights=weights)
        self._out_features = self.network.fc.in_features
        self.network.fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Pooled features (batch, width) of images (batch, 3, height, width)."""
        return self.network(x)


@BACKBONE_REGISTRY.register()
def resnet18(pretrained: bool = True, **kwargs: Any) -> Backbone:
    """ResNet-18; `pretrained` downloads torchvision's ImageNet weights."""
    return _ResNet("resnet18", pretrained)


@BACKBONE_REGISTRY.register()
def resnet34(pretrained: bool = True, **kwargs: Any) -> Backbone:
    """ResNet-34; see `resnet18`."""
    return _ResNet("resnet34", pretrained)


@BACKBONE_REGISTRY.register()
def resnet50(pretrained: bool = True, **kwargs: Any) -> Backbone:
    """ResNet-50; see `resnet18`."""
    return _ResNet("resnet50", pretrained)


@BACKBONE_REGISTRY.register()
def resnet101(pretrained: bool = True, **kwargs: Any) -> Backbone:
    """ResNet-101; see `resnet18`."""
    return _ResNet("resnet101", pretrained)


@BACKBONE_REGISTRY.register()
def resnet152(pretrained: bool = True, **kwargs: Any) -> Backbone:
    """ResNet-152; see `resnet18`."""
    return _ResNet("resnet152", pretrained)


def build_backbone(name: str, verbose: bool = True, **kwargs: Any) -> Any:
    """Create a backbone.

    Args:
        name: as registered.
        verbose: print it.
        **kwargs: for the backbone, such as `pretrained`.

    Raises:
        UserError: there is none of that name.
    """
    backbone = BACKBONE_REGISTRY.get(name)
    if verbose:
        print(f"Backbone: {name}")
    return backbone(**kwargs)
