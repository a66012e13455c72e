"""Run a causal transformer on states that several prompts share (`prompt_layout`).

Norms and linear layers process every state once, as R rows; attention processes small blocks of
queries with their keys. The last block computes only the states at EOS. All indices and masks are
made once per layout, so that a pass consists of the transformer's own operators and one gathering
of keys and values per block.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from .prompt_layout import Blocks, GroupLayout, PromptTrie
from .transformer import ResidualAttentionBlock


@dataclass(frozen=True)
class PackedAttention:
    """Indices and masks of attention between rows, in blocks over all groups.

    Attributes:
        query_index: the rows of all blocks' queries; None if they are all rows in order.
        key_index: the rows of each block's keys.
        bias: 0 where a query attends to a key, else -inf.
        output_index: positions of the output rows among the queries; None for all in order.
    """

    query_index: Int[Tensor, " queries"] | None
    key_index: Int[Tensor, "blocks keys"]
    bias: Float[Tensor, "blocks 1 size keys"]
    output_index: Int[Tensor, " outputs"] | None

    def attend(
        self,
        query: Float[Tensor, "queries width"],
        key_value: Float[Tensor, "rows joint"],
        heads: int,
    ) -> Float[Tensor, "outputs width"]:
        """Return the output at `output_index`; `key_value` has the keys and values of all rows."""
        if self.query_index is not None:
            query = functional.embedding(self.query_index, query)
        # Unlike that of index_select, the gradient of embedding sums in a deterministic order.
        keys_values = functional.embedding(self.key_index, key_value)
        parts = (query.unflatten(0, (len(self.key_index), -1)), *keys_values.chunk(2, dim=-1))
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)
        outputs = mixed.transpose(1, 2).reshape(query.shape)
        return outputs if self.output_index is None else outputs[self.output_index]


class PackedPrompts:
    """Encoder for the prompts of G groups and C classes, which share states.

    Args:
        trie: of one group.
        layout: of all groups.
        dtype: in which attention is computed.
    """

    def __init__(self, trie: PromptTrie, layout: GroupLayout, dtype: torch.dtype) -> None:
        self.layout, self.dtype, row = layout, dtype, layout.row
        self.ends = row[:, trie.ends].flatten()
        # Queries have the order of the nodes: node u is query u of its group.
        outputs = layout.group * row.shape[1] + layout.node
        self.everywhere = PackedAttention(
            row.flatten() if layout.shares else None,
            *keys_and_bias(trie.everywhere, row, dtype),
            outputs if layout.shares else None,
        )
        self.at_ends = PackedAttention(None, *keys_and_bias(trie.at_ends, row, dtype), None)

    def run(
        self, blocks: Sequence[ResidualAttentionBlock], rows: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "rows width"]:
        """Return all states after consecutive blocks, any part of the transformer."""
        width = rows.shape[1]
        for block in blocks:
            query, key_value = block.attn.project(block.ln_1(rows)).split((width, 2 * width), dim=1)
            mixed = self.everywhere.attend(query, key_value, block.attn.heads)
            rows = block.finish(rows, mixed)
        return rows

    def encode(
        self, blocks: Sequence[ResidualAttentionBlock], rows: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "ends width"]:
        """Return the states after consecutive blocks, for all groups' ends."""
        *most, last = blocks
        rows = self.run(most, rows)
        width, normed = rows.shape[1], last.ln_1(rows)
        outputs, queries = (functional.embedding(self.ends, states) for states in (rows, normed))
        query = last.attn.project(queries, slice(width))
        key_value = last.attn.project(normed, slice(width, None))
        return last.finish(outputs, self.at_ends.attend(query, key_value, last.attn.heads))


def keys_and_bias(blocks: Blocks, row: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the key rows of every group's blocks, and the attention bias."""
    bias = torch.zeros_like(blocks.mask, dtype=dtype).masked_fill_(~blocks.mask, -torch.inf)
    return row[:, blocks.key_index].flatten(0, 1), bias.repeat(len(row), 1, 1).unsqueeze(1)
