"""A causal transformer on states that several prompts share (`prompt_layout`).

Norms and linear layers see every state once, as R rows without padding; attention looks at small
blocks of states and what they see. The last block computes what is read: the states at EOS.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from .linear import linear
from .prompt_layout import Blocks, GroupLayout, PromptTrie
from .transformer import ResidualAttentionBlock, Transformer


@dataclass(frozen=True)
class Attention:
    """Which rows attend to which, in M blocks of all groups.

    Attributes:
        asking: the asking rows of each block.
        keys: the rows that any of them sees.
        sees: True where an asking row sees a key.
        cell: where, in `asking` flattened, each row stands whose result is wanted.
    """

    asking: Int[Tensor, "blocks asking"]
    keys: Int[Tensor, "blocks keys"]
    sees: Bool[Tensor, "blocks 1 asking keys"]
    cell: Int[Tensor, " wanted"]

    def mix(
        self,
        query: Float[Tensor, "queries width"],
        key_value: Float[Tensor, "rows joint"],
        heads: int,
    ) -> Float[Tensor, "wanted width"]:
        """What the asking rows get from the values of the rows that they see.

        Args:
            query: of the rows that `asking` counts.
            key_value: keys and values of all rows, side by side.
            heads: of the attention.
        """
        # An embedding is index_select with a gradient that adds up in the same order every time.
        asked = functional.embedding(self.asking, query).unflatten(-1, (heads, -1))
        seen = functional.embedding(self.keys, key_value).unflatten(-1, (2, heads, -1))
        key, value = seen.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            asked.transpose(1, 2), key, value, attn_mask=self.sees
        )
        return mixed.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, self.cell)


class PackedPrompts:
    """The prompts of G groups and C classes on their way through the blocks."""

    def __init__(self, trie: PromptTrie, layout: GroupLayout) -> None:
        self.ends = layout.ends.flatten()
        blocks, groups = trie.everywhere, len(layout.row)
        self.in_common = (trie.seen[layout.node] == 0)[:, None] if groups > 1 else None
        # Nodes ask in the order of their numbers: node u stands in cell u of its group.
        cells = layout.group * blocks.asking.numel() + layout.node
        self.everywhere = Attention(
            layout.row[:, blocks.asking].flatten(0, 1), *_seen(blocks, layout), cells
        )
        blocks = trie.at_ends
        first = torch.arange(groups, device=self.ends.device)[:, None]
        prompts = torch.arange(blocks.count, device=self.ends.device)
        filled = torch.arange(blocks.asking.numel(), device=self.ends.device)
        asking = first * blocks.count + filled.clamp(max=blocks.count - 1)
        self.at_ends = Attention(
            asking.view(-1, blocks.asking.shape[1]),
            *_seen(blocks, layout),
            (first * blocks.asking.numel() + prompts).flatten(),
        )

    def encode(
        self, transformer: Transformer, rows: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "prompts width"]:
        """States at EOS behind the last block, of G x C prompts."""
        *blocks, last = transformer.blocks
        for block in blocks:
            rows = self._apart(rows)
            normed = block.ln_1(rows)
            rows = _pass(block, rows, normed, normed, self.everywhere)
        rows = self._apart(rows)
        normed = last.ln_1(rows)
        kept, asking = (states.index_select(0, self.ends) for states in (rows, normed))
        return _pass(last, kept, asking, normed, self.at_ends)

    def _apart(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """Keep gradients from what groups have in common, which no prompt can change.

        There a group whose numbers overflow would spoil the gradients of all others.
        """
        if self.in_common is None or not rows.requires_grad:
            return rows
        return torch.where(self.in_common, rows.detach(), rows)


def _seen(blocks: Blocks, layout: GroupLayout) -> tuple[Tensor, Tensor]:
    """Rows that the blocks of every group see, and which of their rows sees them."""
    sees = blocks.sees.repeat(len(layout.row), 1, 1)
    return layout.row[:, blocks.keys].flatten(0, 1), sees.unsqueeze(1)


def _pass(
    block: ResidualAttentionBlock,
    kept: Float[Tensor, "wanted width"],
    asking: Float[Tensor, "wanted width"],
    normed: Float[Tensor, "rows width"],
    attention: Attention,
) -> Float[Tensor, "wanted width"]:
    """Run a block for the wanted rows.

    Args:
        block: of the transformer.
        kept: the wanted rows.
        asking: the same, normalised.
        normed: all rows that are seen, normalised.
        attention: which row sees which.
    """
    layer, width = block.attn, kept.shape[1]
    weight, bias = layer.in_proj_weight, layer.in_proj_bias
    query = linear(asking, weight[:width], bias[:width])
    key_value = linear(normed, weight[width:], bias[width:])
    kept = layer.out_proj(attention.mix(query, key_value, layer.heads)).add_(kept)
    return block.mlp(block.ln_2(kept)).add_(kept)
