"""Registry of heads: layers between a backbone and a classifier."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..utils import Registry, check_availability
from .build import builder

HEAD_REGISTRY = Registry("HEAD")
ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}


class MLP(nn.Module):
    """Linear layers, each with normalisation, activation and dropout.

    Args:
        in_features: width of the input.
        hidden_layers: width of each layer, or one width for a single layer.
        activation: relu or leaky_relu.
        bn: batch normalisation after each linear layer.
        dropout: probability; 0 for none.
    """

    def __init__(
        self,
        in_features: int,
        hidden_layers: Sequence[int] | int,
        activation: str = "relu",
        bn: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_availability(activation, list(ACTIVATIONS), "MODEL.HEAD.ACTIVATION")
        widths = [hidden_layers] if isinstance(hidden_layers, int) else list(hidden_layers)
        layers: list[nn.Module] = []
        for before, width in zip([in_features, *widths], widths, strict=False):
            layers.append(nn.Linear(before, width))
            layers += [nn.BatchNorm1d(width)] if bn else []
            layers.append(ACTIVATIONS[activation]())
            layers += [nn.Dropout(dropout)] if dropout > 0 else []
        self.layers = nn.Sequential(*layers)
        self.out_features = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Map features (batch, in_features) to (batch, out_features)."""
        return self.layers(x)


@HEAD_REGISTRY.register()
def mlp(**kwargs: Any) -> MLP:
    """Create an `MLP`; other arguments are ignored."""
    names = ("in_features", "hidden_layers", "activation", "bn", "dropout")
    return MLP(**{name: value for name, value in kwargs.items() if name in names})


build_head = builder(HEAD_REGISTRY, "Head")
