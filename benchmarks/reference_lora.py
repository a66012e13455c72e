"""Reference implementation of CLIP-LoRA in the text encoder, as its published code computes it.

Every prompt has the full 77 tokens, and the image encoder runs in every step. Queries, keys and
values are three projections, each with an adapter and a dropout of its own.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from clip.simple_tokenizer import tokenizer

from .reference_clip import ReferenceCLIP
from .reference_methods import ReferenceCoOp

R, DROPOUT = 2, 0.25
GAMMA = R**-0.5
WORDS = "a photo of a"


class ReferenceLoRAAttention(nn.Module):
    """nn.MultiheadAttention with low-rank adapters of queries, keys and values."""

    def __init__(self, frozen: nn.MultiheadAttention) -> None:
        super().__init__()
        self.frozen = frozen
        width = frozen.embed_dim
        bound = width**-0.5
        self.A = nn.ParameterList(torch.empty(R, width).uniform_(-bound, bound) for _ in range(3))
        self.B = nn.ParameterList(torch.zeros(width, R) for _ in range(3))
        self.to(frozen.in_proj_weight.device)

    def forward(
        self, x: Tensor, *_: Tensor, attn_mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, None]:
        """Return self-attention of x (length, batch, width), as nn.MultiheadAttention does."""
        del need_weights
        frozen, parts = self.frozen, []
        weights = frozen.in_proj_weight.chunk(3), frozen.in_proj_bias.chunk(3)
        for weight, bias, a, b in zip(*weights, self.A, self.B, strict=True):
            update = functional.dropout(x, DROPOUT, self.training) @ a.t() @ b.t()
            part = functional.linear(x, weight, bias) + GAMMA * update
            parts.append(part.unflatten(-1, (frozen.num_heads, -1)).permute(1, 2, 0, 3))
        query, key, value = parts
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)
        return frozen.out_proj(mixed.permute(2, 0, 1, 3).flatten(2)), None


class ReferenceCLIPLoRA(ReferenceCoOp):
    """CLIP-LoRA with adapters in all blocks of the text encoder.

    Args:
        clip_model: the frozen model, which is not changed.
        classnames: C names.
        ctx: ignored; the prompt is "a photo of a {}.".
    """

    def __init__(self, clip_model: ReferenceCLIP, classnames: Sequence[str], ctx: Tensor) -> None:
        tensors = [*clip_model.parameters(), *clip_model.buffers()]
        copied = copy.deepcopy(clip_model, {id(one): one for one in tensors})
        ids = torch.tensor(tokenizer().encode(WORDS), device=ctx.device)
        super().__init__(copied, classnames, clip_model.token_embedding(ids))
        self.ctx.requires_grad_(False)
        self.learned = []
        for block in copied.transformer.get_submodule("resblocks").children():
            adapted = ReferenceLoRAAttention(block.get_submodule("attn"))  # type: ignore[arg-type]
            block.attn = adapted
            self.learned += [*adapted.A, *adapted.B]
        self._optimiser = torch.optim.AdamW(self.learned, lr=2e-4, weight_decay=1e-2)
