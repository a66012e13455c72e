"""Backbone registry with torchvision's ResNets without their last layer."""

from collections.abc import Callable
from typing import Any

import torchvision
from torch import Tensor, nn

from ..utils import Registry
from .build import builder

BACKBONE_REGISTRY = Registry("BACKBONE")


class Backbone(nn.Module):
    """Network that maps images to feature vectors; a subclass sets `_out_features`."""

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
        """Return pooled features (batch, width) of images (batch, 3, height, width)."""
        return self.network(x)


def _register(name: str) -> Callable[..., Backbone]:
    def build(pretrained: bool = True, **kwargs: Any) -> Backbone:
        """Create a ResNet of torchvision; `pretrained` downloads its ImageNet weights."""
        return _ResNet(name, pretrained)

    build.__name__ = build.__qualname__ = name
    return BACKBONE_REGISTRY.register(build)


resnet18 = _register("resnet18")
resnet34 = _register("resnet34")
resnet50 = _register("resnet50")
resnet101 = _register("resnet101")
resnet152 = _register("resnet152")

build_backbone = builder(BACKBONE_REGISTRY, "Backbone")
