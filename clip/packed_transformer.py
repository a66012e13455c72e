"""Run a causal transformer on states that several prompts share (`prompt_layout`).

Norms and linear layers process every state once, as R rows; attention processes small blocks of
queries with their keys. The last block computes only the states at EOS. All indices and masks are
made once per layout, so that a pass consists of the transformer's own operators and one gathering
of keys and values per block. On a GPU, few enough states attend to their whole group instead,
without gathering.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from .prompt_layout import Blocks, GroupLayout, PromptTrie
from .transformer import ResidualAttentionBlock

# States of a group up to which every state attends to the whole group. On a GPU, 1,024 states of
# width 512 add a third to a layer's arithmetic (U / 6 D), and save a gathering, its sorted gradient
# and the copies of keys that blocks share. A CPU is bound by arithmetic.
WHOLE_GROUP = {"cpu": 0}
WHOLE_GROUP_ELSEWHERE = 1024


@dataclass(frozen=True)
class PackedAttention:
    """Indices and masks of attention between rows, in blocks over all groups.

    Attributes:
        query_index: the rows of all blocks' queries; None if they are all rows in order.
        key_index: the rows of each block's keys; None if each group is one block with all its rows.
        bias: 0 where a query attends to a key, else -inf; the same for all groups if it has one
            block.
        output_index: positions of the output rows among the queries; None for all in order.
        blocks: their number over all groups.
    """

    query_index: Int[Tensor, " queries"] | None
    key_index: Int[Tensor, "blocks keys"] | None
    bias: Float[Tensor, "blocks 1 size keys"] | Float[Tensor, "1 1 size keys"]
    output_index: Int[Tensor, " outputs"] | None
    blocks: int

    def attend(
        self,
        query: Float[Tensor, "queries width"],
        key_value: Float[Tensor, "rows joint"],
        heads: int,
    ) -> Float[Tensor, "outputs width"]:
        """Return the output at `output_index`; `key_value` has the keys and values of all rows."""
        if self.query_index is not None:
            query = functional.embedding(self.query_index, query)
        if self.key_index is None:
            keys_values = key_value.unflatten(0, (self.blocks, -1))
        else:
            # Unlike that of index_select, the gradient of embedding sums in a deterministic order.
            keys_values = functional.embedding(self.key_index, key_value)
        parts = (query.unflatten(0, (self.blocks, -1)), *keys_values.chunk(2, dim=-1))
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
        limit = WHOLE_GROUP.get(row.device.type, WHOLE_GROUP_ELSEWHERE)
        if not layout.shares and row.shape[1] <= limit:
            self.everywhere = attend_to_group(trie.everywhere, row, dtype)
            self.at_ends = attend_to_group(trie.at_ends, row, dtype)
        else:
            # Queries have the order of the nodes: node u is query u of its group.
            outputs = layout.group * row.shape[1] + layout.node
            shared = (row.flatten(), outputs) if layout.shares else (None, None)
            self.everywhere = attend_in_blocks(trie.everywhere, row, dtype, *shared)
            self.at_ends = attend_in_blocks(trie.at_ends, row, dtype)

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


def attend_in_blocks(
    blocks: Blocks,
    row: Int[Tensor, "groups nodes"],
    dtype: torch.dtype,
    query_index: Int[Tensor, " queries"] | None = None,
    output_index: Int[Tensor, " outputs"] | None = None,
) -> PackedAttention:
    """Return the attention of every group's blocks, each to its own keys.

    Args:
        blocks: of one group.
        row: of every node in every group.
        dtype: of the attention.
        query_index: see `PackedAttention`.
        output_index: see `PackedAttention`.
    """
    keys = row[:, blocks.key_index].flatten(0, 1)
    bias = _bias(blocks.mask, dtype).repeat(len(row), 1, 1).unsqueeze(1)
    return PackedAttention(query_index, keys, bias, output_index, len(keys))


def attend_to_group(
    blocks: Blocks, row: Int[Tensor, "groups nodes"], dtype: torch.dtype
) -> PackedAttention:
    """Return the same attention with each group as one block; row u of a group is its node u."""
    block, query, key = blocks.mask.nonzero().unbind(1)
    count, size, _ = blocks.mask.shape
    mask = blocks.mask.new_zeros(count * size, row.shape[1])
    mask[block * size + query, blocks.key_index[block, key]] = True
    return PackedAttention(None, None, _bias(mask, dtype)[None, None], None, len(row))


def _bias(mask: Bool[Tensor, "*any"], dtype: torch.dtype) -> Float[Tensor, "*any"]:
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf)
