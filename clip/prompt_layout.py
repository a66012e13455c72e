"""Find the hidden states that the prompts of many classes and groups share.

The text encoder is causal: the state at a position depends only on the tokens up to it. So the
prompts `[SOS] ctx [name] . [EOS]` of all classes form a trie, each of whose nodes is one hidden
state per layer. All classes share SOS and a generic context before the names; a class has its own
nodes from the first token that differs. Corrupted copies of a prompt can also share the nodes up to
the first vector that differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .simple_tokenizer import END, START, tokenizer

POSITIONS = ("end", "middle", "front")
NODE_COLUMNS = ("token", "slot", "class_index", "position", "prefix_length")


def clean_classname(name: str) -> str:
    """Turn a dataset's class name into text: underscores become spaces."""
    return name.replace("_", " ")


def arrange_prompt(name: str, length: int, position: str = "end") -> tuple[list[int], list[int]]:
    """Lay out `[SOS] ctx [name] . [EOS]` for one class.

    Args:
        name: the class name; underscores become spaces.
        length: L, the number of context vectors.
        position: of the name: at the `end`, in the `middle` (after half of the context) or at the
            `front`.

    Returns:
        Token ids (0 at the context) up to EOS, and the L positions of the context.
    """
    text = clean_classname(name)
    # As in CoOp: the name is tokenized with the full stop, with which a closing bracket forms one
    # token, but its length is counted without it.
    joint, count = tokenizer().encode(f"{text}."), len(tokenizer().encode(text))
    name_ids, tail = joint[:count], joint[count:]
    before = {"end": length, "middle": length // 2, "front": 0}[position]
    sos, eos = tokenizer().encoder[START], tokenizer().encoder[END]

    ids = [sos] + [0] * before + name_ids + [0] * (length - before) + tail + [eos]
    after = 1 + before + len(name_ids)
    slots = [*range(1, 1 + before), *range(after, after + length - before)]
    return ids, slots


@dataclass(frozen=True)
class Blocks:
    """Attention queries in blocks of a few nodes, with the keys that each block attends to.

    Every node attends to its ancestors and itself. Nodes with consecutive numbers share most
    ancestors, so a block of them needs few keys: small dense products, without a copy of the whole
    prompt for every class.

    Attributes:
        key_index: the key nodes of each block, padded with any node.
        mask: True where a query attends to a key.
    """

    key_index: Int[Tensor, "blocks keys"]
    mask: Bool[Tensor, "blocks queries keys"]

    def to(self, device: torch.device) -> "Blocks":
        """Return the same blocks on a device."""
        return Blocks(self.key_index.to(device), self.mask.to(device))


def fill_blocks(items: list[Any]) -> list[Any]:
    """Repeat the last item until all blocks are full; the blocks' size leaves little to fill."""
    return [*items, *[items[-1]] * (-len(items) % block_size(len(items)))]


def block_size(count: int) -> int:
    """Return the number of queries per block; 16 to 64 cost about the same."""
    sizes = range(24, 49)
    return count if count < 49 else min(sizes, key=lambda size: (-count % size, abs(size - 32)))


def make_blocks(paths: Sequence[Sequence[int]], size: int) -> Blocks:
    """Divide queries into blocks.

    Args:
        paths: for every query, the nodes from the root to the query.
        size: queries per block, which divides their number.
    """
    chunks = [paths[start : start + size] for start in range(0, len(paths), size)]
    needed = [sorted({node for path in chunk for node in path}) for chunk in chunks]
    keys = torch.zeros(len(chunks), max(map(len, needed)), dtype=torch.long)
    mask = torch.zeros(len(chunks), size, keys.shape[1], dtype=torch.bool)
    for block, (chunk, nodes) in enumerate(zip(chunks, needed, strict=True)):
        keys[block, : len(nodes)] = torch.tensor(nodes)
        column = {node: index for index, node in enumerate(nodes)}
        for row, path in enumerate(chunk):
            mask[block, row, [column[node] for node in path]] = True
    return Blocks(keys, mask)


@dataclass(frozen=True)
class PromptTrie:
    """Trie of the prompts of all classes in one group, with numbered nodes.

    The last node and the last EOS are repeated to fill the attention blocks.

    Attributes:
        token: token id of each node, 0 for a context vector.
        slot: index of a node's context vector among the L vectors, -1 for a token.
        class_index: the class of a class-specific context vector, 0 for a generic one.
        position: position in the prompt.
        prefix_length: number of context vectors up to and including the node.
        ends: the node of each class's EOS, and the repeated ones.
        everywhere: blocks of all nodes, in order.
        at_ends: blocks of the EOS nodes, in the order of the classes.
    """

    token: Int[Tensor, " nodes"]
    slot: Int[Tensor, " nodes"]
    class_index: Int[Tensor, " nodes"]
    position: Int[Tensor, " nodes"]
    prefix_length: Int[Tensor, " nodes"]
    ends: Int[Tensor, " ends"]
    everywhere: Blocks
    at_ends: Blocks

    def to(self, device: torch.device) -> "PromptTrie":
        """Return the same trie on a device."""
        return PromptTrie(**{key: value.to(device) for key, value in vars(self).items()})


def build_trie(prompts: Sequence[tuple[list[int], list[int]]], class_specific: bool) -> PromptTrie:
    """Build the trie of the prompts of all classes, laid out by `arrange_prompt`."""
    numbers: dict[tuple[int, int, int, int], int] = {}  # (parent, token, slot, class) -> node
    rows: list[tuple[int, ...]] = []  # the columns of each node
    path_to: list[list[int]] = []  # from the root to each node
    ends = []
    for label, (ids, slots) in enumerate(prompts):
        slot_at = {position: slot for slot, position in enumerate(slots)}
        path: list[int] = []
        prefix_length, node = 0, -1
        for position, token in enumerate(ids):
            slot = slot_at.get(position, -1)
            prefix_length += 1 if slot >= 0 else 0
            class_index = label if class_specific and prefix_length else 0
            key = (node, token, slot, class_index)
            if key not in numbers:
                numbers[key] = len(rows)
                rows.append((token, slot, class_index, position, prefix_length))
                path_to.append([*path, numbers[key]])
            node = numbers[key]
            path.append(node)
        ends.append(node)
    filled, filled_ends = fill_blocks(list(range(len(rows)))), fill_blocks(ends)
    columns = torch.tensor([rows[node] for node in filled]).unbind(1)
    # A repeated node is a query of its own, but nobody attends to it.
    return PromptTrie(
        **dict(zip(NODE_COLUMNS, columns, strict=True)),
        ends=torch.tensor(filled_ends),
        everywhere=make_blocks([path_to[node] for node in filled], block_size(len(rows))),
        at_ends=make_blocks([path_to[node] for node in filled_ends], block_size(len(ends))),
    )


@dataclass(frozen=True)
class GroupLayout:
    """Layout of the states of G groups of prompts in R rows, each of which is computed once.

    Attributes:
        node: the trie node of each row.
        group: the group of each row; later groups may share the row.
        row: the row of every node in every group.
        context: the rows of context vectors.
        vector: the index of each of these vectors in the flattened (G, C or 1, L).
        shares: whether groups share rows; if not, row is group * nodes + node.
    """

    node: Int[Tensor, " rows"]
    group: Int[Tensor, " rows"]
    row: Int[Tensor, "groups nodes"]
    context: Int[Tensor, " vectors"]
    vector: Int[Tensor, " vectors"]
    shares: bool


def lay_out(
    trie: PromptTrie,
    first_group: Int[Tensor, "groups contexts prefixes"],
    shares: bool = True,
) -> GroupLayout:
    """Assign a row to every node of every group; groups with equal states share the row.

    Args:
        trie: of one group.
        first_group: for every group, context (of a class, or the generic one) and number of
            vectors, the first group with the same vectors up to there.
        shares: see `GroupLayout`.
    """
    groups, contexts, prefixes = first_group.shape
    nodes = torch.arange(len(trie.token), device=first_group.device)
    # (G, U): the group in which each node is computed
    source = first_group[:, trie.class_index, trie.prefix_length]
    computed = source == torch.arange(groups, device=first_group.device)[:, None]
    number = (computed.flatten().cumsum(0) - 1).view_as(computed)
    row = number[source, nodes]  # (G, U)
    group, node = computed.nonzero().unbind(1)
    context = (trie.slot[node] >= 0).nonzero()[:, 0]
    at = node[context]
    vector = (group[context] * contexts + trie.class_index[at]) * (prefixes - 1) + trie.slot[at]
    return GroupLayout(node, group, row, context, vector, shares)


def lay_out_independent(trie: PromptTrie, groups: int, contexts: int, length: int) -> GroupLayout:
    """Return the layout of groups that share nothing, so that none can affect another.

    Args:
        trie: of one group.
        groups: G.
        contexts: C for class-specific contexts, else 1.
        length: L.
    """
    first_group = torch.arange(groups, device=trie.token.device).view(-1, 1, 1)
    return lay_out(trie, first_group.expand(-1, contexts, length + 1), shares=False)


def begin_equally(ctx: Float[Tensor, "groups contexts length width"]) -> bool:
    """Return whether two groups can share a state: whether vectors of theirs begin equally."""
    first = ctx[:, :, 0, 0]
    equal = (first.unsqueeze(1) == first.unsqueeze(0)).any(-1)
    return int(equal.sum()) > len(ctx)


def first_group_by_content(
    ctx: Float[Tensor, "groups contexts length width"],
) -> Int[Tensor, "groups contexts prefixes"]:
    """Return `first_group` for groups that share the states of equal vectors."""
    _, symbols = torch.unique(ctx.flatten(0, 2), dim=0, return_inverse=True)
    symbols = symbols.view(ctx.shape[:3])
    same = (symbols.unsqueeze(1) == symbols.unsqueeze(0)).int().cumprod(-1)  # (G, G, C or 1, L)
    return torch.nn.functional.pad(same.argmax(dim=1), (1, 0))
