"""The transformer of both encoders, with OpenAI's attribute and parameter names.

CLIP (Radford et al., ICML 2021), section 2.4: pre-normalisation blocks, QuickGELU in OpenAI's
weights and GELU in most of open_clip's.
"""

from collections import OrderedDict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from .linear import Linear, linear


class LayerNorm(nn.LayerNorm):
    """Layer normalisation that computes in fp32 for every precision of input and weights."""

    def forward(self, input: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Apply the layer; the result has the input's precision."""
        weight, bias = self.weight.float(), self.bias.float()
        normed = functional.layer_norm(input.float(), self.normalized_shape, weight, bias, self.eps)
        return normed.to(input.dtype)


class _QuickGELUFunction(torch.autograd.Function):
    """silu(1.702 x) / 1.702, whose gradient is that of silu at 1.702 x: the factors cancel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        scaled = 1.702 * x
        ctx.save_for_backward(scaled)
        return functional.silu(scaled).mul_(1 / 1.702)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (scaled,) = ctx.saved_tensors
        return torch.ops.aten.silu_backward(gradients[0], scaled)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation of GELU in OpenAI's models."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Apply the activation elementwise."""
        if torch.is_grad_enabled() and x.requires_grad:
            return _QuickGELUFunction.apply(x)
        return functional.silu(1.702 * x, inplace=True).mul_(1 / 1.702)


class Attention(nn.Module):
    """Multi-head self-attention with the parameter names of nn.MultiheadAttention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def project(
        self, x: Float[Tensor, "*batch width"], part: slice = slice(None)
    ) -> Float[Tensor, "*batch outputs"]:
        """Return queries, keys and values, concatenated, or only a part of these 3 D numbers."""
        return linear(x, self.in_proj_weight, self.in_proj_bias, part)

    def forward(
        self, x: Float[Tensor, "length batch width"], causal: bool = False
    ) -> Float[Tensor, "length batch width"]:
        """Apply self-attention; if causal, position i attends only to positions 0 to i."""
        joint = self.project(x)
        query, key, value = joint.unflatten(-1, (3, self.heads, -1)).permute(2, 1, 3, 0, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return self.out_proj(mixed.permute(2, 0, 1, 3).flatten(2))


class ResidualAttentionBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, causal: bool, activation: str) -> None:
        super().__init__()
        self.causal = causal
        self.attn = Attention(width, heads)
        self.ln_1 = LayerNorm(width)
        layers = [
            ("c_fc", Linear(width, width * 4)),
            ("gelu", QuickGELU() if activation == "quick_gelu" else nn.GELU()),
            ("c_proj", Linear(width * 4, width)),
        ]
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.ln_2 = LayerNorm(width)

    def forward(
        self, x: Float[Tensor, "length batch width"]
    ) -> Float[Tensor, "length batch width"]:
        """Run the block."""
        x = x + self.attn(self.ln_1(x), causal=self.causal)
        return x + self.mlp(self.ln_2(x))

    def finish(
        self, x: Float[Tensor, "*batch width"], mixed: Float[Tensor, "*batch width"]
    ) -> Float[Tensor, "*batch width"]:
        """Run the block from the output projection of attention on, in the precision of x.

        Args:
            x: the residual stream, which autocast keeps at fp32.
            mixed: the values that attention has mixed for these rows.
        """
        x = _add(x, self.attn.out_proj(mixed))
        return _add(x, self.mlp(self.ln_2(x)))


def _add(x: Tensor, update: Tensor) -> Tensor:
    return update.add_(x) if update.dtype == x.dtype else x + update


class Transformer(nn.Module):
    """A stack of residual attention blocks on (length, batch, width).

    A causal transformer accepts every length, so that texts may be cut after their EOS.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        causal: bool = False,
        activation: str = "quick_gelu",
    ) -> None:
        super().__init__()
        self.width = width
        self.layers = layers
        self.resblocks = nn.Sequential(
            *(ResidualAttentionBlock(width, heads, causal, activation) for _ in range(layers))
        )

    def initialize_parameters(self) -> None:
        """Initialise all weights; those that add to the residual stream depend on the depth."""
        width = self.width
        into_residual = width**-0.5 * (2 * self.layers) ** -0.5
        scales = {
            "attn.in_proj_weight": width**-0.5,
            "attn.out_proj.weight": into_residual,
            "mlp.c_fc.weight": (2 * width) ** -0.5,
            "mlp.c_proj.weight": into_residual,
        }
        for block in self.blocks:
            for name, std in scales.items():
                nn.init.normal_(block.get_parameter(name), std=std)

    @property
    def blocks(self) -> list[ResidualAttentionBlock]:
        """The blocks in order, to run them one by one."""
        return [block for block in self.resblocks if isinstance(block, ResidualAttentionBlock)]

    def forward(
        self, x: Float[Tensor, "length batch width"]
    ) -> Float[Tensor, "length batch width"]:
        """Run all blocks."""
        # Callers permute (batch, length, width); one copy here avoids one in every layer.
        return self.resblocks(x.contiguous())
