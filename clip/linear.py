"""Linear layers that use oneDNN for frozen weights on a CPU.

PyTorch multiplies fp32 matrices with MKL, which does not use AVX-512 on processors of other makers
than Intel; oneDNN, which PyTorch contains for its convolutions, does. The two differ by rounding.
"""

from collections.abc import MutableMapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary


def _onednn_works() -> bool:
    """Return whether this build of PyTorch has the operator, and its result is right."""
    try:
        product = _product(torch.eye(2), torch.ones(2, 2), None)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool((product == 1).all())


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


ONEDNN = torch.backends.mkldnn.is_available() and _onednn_works()


class _FrozenLinear(torch.autograd.Function):
    """x @ weight.T + bias with a gradient only for x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _product(gradients[0].contiguous(), ctx.weight.t(), None), None, None


# Frozen weights in the precision of autocast, which would cast them anew in every call, with the
# version of the weights that was cast.
_cast: MutableMapping[Tensor, tuple[int, Tensor]] = WeakTensorKeyDictionary()


def _autocast_weight(weight: Tensor) -> Tensor:
    """Return a frozen weight in the precision of autocast, cast once."""
    dtype = torch.get_autocast_dtype(weight.device.type)
    version, cast = _cast.get(weight, (-1, weight))
    if version != weight._version or cast.dtype != dtype:
        cast = weight.detach().to(dtype)
        _cast[weight] = (weight._version, cast)
    return cast


def linear(
    x: Float[Tensor, "*batch ingoing"],
    weight: Float[Tensor, "outgoing ingoing"],
    bias: Float[Tensor, " outgoing"] | None = None,
    part: slice = slice(None),
) -> Float[Tensor, "*batch outputs"]:
    """Return x @ weight.T + bias, computed by oneDNN for frozen fp32 weights on a CPU.

    Args:
        x: the inputs.
        weight: the whole matrix.
        bias: None for none.
        part: compute only these outputs.
    """
    frozen = not weight.requires_grad and (bias is None or not bias.requires_grad)
    if frozen and torch.is_autocast_enabled(x.device.type):
        weight = _autocast_weight(weight)
        bias = _autocast_weight(bias) if bias is not None else None
    if part != slice(None):
        weight, bias = weight[part], bias[part] if bias is not None else None
    fits = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    # Autocast, torch.compile and tracing only support PyTorch's own operator.
    observed = (
        torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or torch.jit.is_tracing()
    )
    if not (ONEDNN and frozen and fits) or observed:
        return functional.linear(x, weight, bias)
    product = _FrozenLinear.apply if torch.is_grad_enabled() and x.requires_grad else _product
    rows = product(x.reshape(-1, x.shape[-1]), weight, bias)
    return rows.unflatten(0, x.shape[:-1]) if x.dim() != 2 else rows


class Linear(nn.Linear):
    """nn.Linear that computes with `linear`."""

    def forward(self, input: Float[Tensor, "*batch ingoing"]) -> Float[Tensor, "*batch outgoing"]:
        """Apply the layer."""
        return linear(input, self.weight, self.bias)
