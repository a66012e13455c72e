"""A causal transformer on states that several prompts share (`prompt_layout`).

Norms and linear layers see every state once, as R rows without padding; only attention looks at
whole prompts. The last block computes what is read: the state at EOS.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from .linear import linear
from .prompt_layout import GroupLayout, PromptTrie
from .transformer import ResidualAttentionBlock, Transformer


class _Spread(torch.autograd.Function):
    """From rows to the cells of prompts; a row's gradient is the sum over its cells."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, layout: GroupLayout) -> Tensor:
        ctx.layout = layout
        return rows.index_select(0, layout.row)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        layout, cells = ctx.layout, gradients[0]
        rows = cells.index_select(0, layout.home)
        if len(layout.repeats):
            rows.index_add_(0, layout.row[layout.repeats], cells[layout.repeats])
        return rows, None


class _Collect(torch.autograd.Function):
    """From the cells of prompts to the rows that they stand for."""

    @staticmethod
    def forward(ctx: Any, cells: Tensor, layout: GroupLayout) -> Tensor:
        ctx.layout, ctx.count = layout, len(cells)
        return cells.index_select(0, layout.home)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (rows,) = gradients
        cells = rows.new_zeros(ctx.count, *rows.shape[1:])
        return cells.index_copy_(0, ctx.layout.home, rows), None


class PackedPrompts:
    """The prompts of G groups and C classes on their way through the blocks."""

    def __init__(self, trie: PromptTrie, layout: GroupLayout) -> None:
        self.trie = trie
        self.layout = layout
        self.groups = len(layout.ends)
        self.classes, self.tail = trie.tails.shape
        steps = torch.arange(self.tail, device=trie.tails.device)
        self.causal = steps <= steps[:, None]  # (S, S)
        self.until_end = (steps <= trie.ends[:, None]).unsqueeze(1)  # (C, 1, S)

    def encode(
        self, transformer: Transformer, rows: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "prompts width"]:
        """States at EOS behind the last block, of G x C prompts."""
        *blocks, last = transformer.blocks
        for block in blocks:
            rows = self._block(block, rows)
        return self._last_block(last, rows)

    def _block(
        self, block: ResidualAttentionBlock, rows: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "rows width"]:
        attention = block.attn
        joint = linear(block.ln_1(rows), attention.in_proj_weight, attention.in_proj_bias)
        trunk, tails = self._split(joint, attention.heads, 3)
        query, key, value = trunk
        mixed_trunk = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        mixed_tails = attend(tails, (key, value), self.causal)
        cells = [
            mixed_trunk.transpose(1, 2).reshape(-1, rows.shape[1]),
            mixed_tails.permute(0, 2, 3, 1, 4).reshape(-1, rows.shape[1]),
        ]
        rows = rows + attention.out_proj(_Collect.apply(torch.cat(cells), self.layout))
        return rows + block.mlp(block.ln_2(rows))

    def _last_block(
        self, block: ResidualAttentionBlock, rows: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "prompts width"]:
        attention, width = block.attn, rows.shape[1]
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        normed, ends = block.ln_1(rows), self.layout.ends.flatten()
        query = linear(normed.index_select(0, ends), weight[:width], bias[:width])
        query = query.view(self.groups, self.classes, 1, attention.heads, -1)
        joint = linear(normed, weight[width:], bias[width:])
        trunk, tails = self._split(joint, attention.heads, 2)
        mixed = attend((query.permute(0, 3, 1, 2, 4), *tails), trunk, self.until_end)
        mixed = mixed.permute(0, 2, 3, 1, 4).reshape(-1, width)
        states = rows.index_select(0, ends) + attention.out_proj(mixed)
        return states + block.mlp(block.ln_2(states))

    def _split(
        self, rows: Float[Tensor, "rows joint"], heads: int, kinds: int
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Queries, keys and values (kinds 3), or keys and values (2), of trunks and of tails.

        Returns:
            (G, heads, p, head) of the trunks and (G, heads, C, S, head) of the tails.
        """
        cells = _Spread.apply(rows, self.layout).unflatten(-1, (kinds, heads, -1))
        in_trunks = self.groups * self.trie.trunk
        trunk = cells[:in_trunks].unflatten(0, (self.groups, -1))
        tails = cells[in_trunks:].unflatten(0, (self.groups, self.classes, self.tail))
        return (
            trunk.permute(2, 0, 3, 1, 4).unbind(0),
            tails.permute(3, 0, 4, 1, 2, 5).unbind(0),
        )


def attend(
    tails: Sequence[Float[Tensor, "groups heads classes _ head"]],
    trunk: Sequence[Float[Tensor, "groups heads trunk head"]],
    mask: Bool[Tensor, "*classes asking tail"],
) -> Float[Tensor, "groups heads classes asking head"]:
    """Attention of the tails' states to the whole trunk and to their own tail.

    The trunk's keys and values are not copied for each class: one product serves all classes.

    Args:
        tails: queries, keys and values.
        trunk: keys and values.
        mask: True where a query may see a key of its tail.
    """
    query, key, value = tails
    trunk_key, trunk_value = trunk
    classes, asking = query.shape[2:4]
    query = query.contiguous()
    to_trunk = (query.flatten(2, 3) @ trunk_key.mT).unflatten(2, (classes, asking))
    to_tail = (query @ key.mT).masked_fill(~mask, -torch.inf)
    scores = torch.cat([to_trunk, to_tail], dim=-1)
    scores = scores * query.shape[-1] ** -0.5
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    of_trunk, of_tail = weights.split([trunk_key.shape[2], key.shape[3]], dim=-1)
    from_trunk = (of_trunk.flatten(2, 3) @ trunk_value).unflatten(2, (classes, asking))
    return from_trunk + of_tail @ value
