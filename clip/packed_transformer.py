"""Run a causal transformer on states that several prompts share (`prompt_layout`).

Norms and linear layers process every state once, as R rows without padding; attention processes
small blocks of queries with their keys. The last block computes only the states at EOS.
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
class PackedAttention:
    """Indices and masks of attention between rows, in blocks over all groups.

    Attributes:
        query_index: the rows of each block's queries.
        key_index: the rows of each block's keys.
        mask: True where a query attends to a key.
        output_index: positions of the output rows in the flattened `query_index`.
    """

    query_index: Int[Tensor, "blocks queries"]
    key_index: Int[Tensor, "blocks keys"]
    mask: Bool[Tensor, "blocks 1 queries keys"]
    output_index: Int[Tensor, " outputs"]

    def attend(
        self,
        query: Float[Tensor, "queries width"],
        key_value: Float[Tensor, "rows joint"],
        heads: int,
    ) -> Float[Tensor, "outputs width"]:
        """Return the output at `output_index`; `key_value` has the keys and values of all rows."""
        # Unlike that of index_select, the gradient of embedding sums in a deterministic order.
        queries = functional.embedding(self.query_index, query).unflatten(-1, (heads, -1))
        keys_values = functional.embedding(self.key_index, key_value).unflatten(-1, (2, heads, -1))
        key, value = keys_values.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            queries.transpose(1, 2), key, value, attn_mask=self.mask
        )
        return mixed.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, self.output_index)


class PackedPrompts:
    """Encoder for the prompts of G groups and C classes, which share states."""

    def __init__(self, trie: PromptTrie, layout: GroupLayout) -> None:
        self.ends = layout.ends.flatten()
        blocks, groups = trie.everywhere, len(layout.row)
        self.shared = (trie.prefix_length[layout.node] == 0)[:, None] if groups > 1 else None
        # Queries have the order of the nodes: node u is query u of its group.
        keys, mask = _keys_and_mask(blocks, layout)
        outputs = layout.group * blocks.query_index.numel() + layout.node
        self.everywhere = PackedAttention(
            layout.row[:, blocks.query_index].flatten(0, 1), keys, mask, outputs
        )
        blocks = trie.at_ends
        first = torch.arange(groups, device=self.ends.device)[:, None]
        prompts = torch.arange(blocks.count, device=self.ends.device)
        filled = torch.arange(blocks.query_index.numel(), device=self.ends.device)
        queries = first * blocks.count + filled.clamp(max=blocks.count - 1)
        self.at_ends = PackedAttention(
            queries.view(-1, blocks.query_index.shape[1]),
            *_keys_and_mask(blocks, layout),
            (first * blocks.query_index.numel() + prompts).flatten(),
        )

    def encode(
        self, transformer: Transformer, rows: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "prompts width"]:
        """Return the states at EOS after the last block, for G x C prompts."""
        *blocks, last = transformer.blocks
        for block in blocks:
            rows = self._detach_shared(rows)
            normed = block.ln_1(rows)
            rows = _block_pass(block, rows, normed, normed, self.everywhere)
        rows = self._detach_shared(rows)
        normed = last.ln_1(rows)
        outputs, queries = (states.index_select(0, self.ends) for states in (rows, normed))
        return _block_pass(last, outputs, queries, normed, self.at_ends)

    def _detach_shared(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """Detach the states that all groups share, which no prompt can change.

        Otherwise a group whose numbers overflow would make the gradients of all others NaN.
        """
        if self.shared is None or not rows.requires_grad:
            return rows
        return torch.where(self.shared, rows.detach(), rows)


def _keys_and_mask(blocks: Blocks, layout: GroupLayout) -> tuple[Tensor, Tensor]:
    """Return the key rows of every group's blocks, and the attention mask."""
    mask = blocks.mask.repeat(len(layout.row), 1, 1)
    return layout.row[:, blocks.key_index].flatten(0, 1), mask.unsqueeze(1)


def _block_pass(
    block: ResidualAttentionBlock,
    rows: Float[Tensor, "outputs width"],
    queries: Float[Tensor, "outputs width"],
    keys: Float[Tensor, "rows width"],
    attention: PackedAttention,
) -> Float[Tensor, "outputs width"]:
    """Run one residual block for the given rows.

    Args:
        block: the block.
        rows: the residual stream of the output rows.
        queries: the same, after ln_1.
        keys: all rows that are attended to, after ln_1.
        attention: which row attends to which.
    """
    layer, width = block.attn, rows.shape[1]
    weight, bias = layer.in_proj_weight, layer.in_proj_bias
    query = linear(queries, weight[:width], bias[:width])
    key_value = linear(keys, weight[width:], bias[width:])
    rows = layer.out_proj(attention.attend(query, key_value, layer.heads)).add_(rows)
    return block.mlp(block.ln_2(rows)).add_(rows)
