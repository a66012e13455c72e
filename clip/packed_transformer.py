"""Run a causal transformer on states that several prompts share (`prompt_layout`).

Norms and linear layers process every state once, as R rows; attention processes small blocks of
queries with their keys. The last block computes only the states at EOS. All indices and masks are
made once per layout, so that a pass consists of the transformer's own operators and one gathering
of keys and values per block.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from .prompt_layout import Blocks, GroupLayout, PromptTrie
from .transformer import ResidualAttentionBlock, Transformer


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
        self.layout, row = layout, layout.row
        self.ends = row[:, trie.ends].flatten()
        # Queries have the order of the nodes: node u is query u of its group.
        outputs = layout.group * row.shape[1] + layout.node
        self.everywhere = PackedAttention(
            row.flatten() if layout.shares else None,
            *_keys_and_bias(trie.everywhere, row, dtype),
            outputs if layout.shares else None,
        )
        self.at_ends = PackedAttention(None, *_keys_and_bias(trie.at_ends, row, dtype), None)

    def encode(
        self, transformer: Transformer, rows: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "ends width"]:
        """Return the states at EOS after the last block, for all groups' ends."""
        *blocks, last = transformer.blocks
        for block in blocks:
            joint = block.attn.project(block.ln_1(rows))
            query, key_value = joint.split((rows.shape[1], 2 * rows.shape[1]), dim=1)
            rows = _finish_block(block, rows, query, key_value, self.everywhere)
        layer, width, normed = last.attn, rows.shape[1], last.ln_1(rows)
        outputs, queries = (functional.embedding(self.ends, states) for states in (rows, normed))
        query = layer.project(queries, slice(width))
        key_value = layer.project(normed, slice(width, None))
        return _finish_block(last, outputs, query, key_value, self.at_ends)


def _keys_and_bias(blocks: Blocks, row: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the key rows of every group's blocks, and the attention bias."""
    bias = torch.zeros_like(blocks.mask, dtype=dtype).masked_fill_(~blocks.mask, -torch.inf)
    return row[:, blocks.key_index].flatten(0, 1), bias.repeat(len(row), 1, 1).unsqueeze(1)


def _finish_block(
    block: ResidualAttentionBlock,
    rows: Float[Tensor, "outputs width"],
    query: Float[Tensor, "outputs width"],
    key_value: Float[Tensor, "rows joint"],
    attention: PackedAttention,
) -> Float[Tensor, "outputs width"]:
    """Run one residual block from its projections on.

    Args:
        block: the block.
        rows: the residual stream of the output rows.
        query: the queries of these rows.
        key_value: keys and values of all rows, concatenated.
        attention: which row attends to which.
    """
    layer = block.attn
    rows = _add(rows, layer.out_proj(attention.attend(query, key_value, layer.heads)))
    return _add(rows, block.mlp(block.ln_2(rows)))


def _add(rows: Tensor, update: Tensor) -> Tensor:
    """Return the sum in the precision of the residual stream, which autocast keeps at fp32."""
    return update.add_(rows) if update.dtype == rows.dtype else rows + update
