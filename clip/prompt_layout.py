"""Which hidden states the prompts of many classes and groups have in common.

The text tower is causal: the state at a place depends on what stands before it and nothing else.
So the prompts `[SOS] ctx [name] . [EOS]` of all classes form a trie, and every node of it is one
hidden state per layer. SOS and a generic context in front of the names are nodes of all classes; a
class keeps nodes of its own from where it departs from all others. Groups of prompts (corrupted
copies, say) share the nodes up to the first vector that differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .simple_tokenizer import END, START, tokenizer

POSITIONS = ("end", "middle", "front")
NODE_COLUMNS = ("token", "slot", "class_index", "position", "prefix_length")
BLOCK = 32  # nodes that attend together; 16 to 64 cost about the same


def clean_classname(name: str) -> str:
    """Turn a dataset's class name into text: underscores become spaces."""
    return name.replace("_", " ")


def vectors_before_name(length: int, position: str) -> int:
    """How many of the L context vectors stand before the class name."""
    return {"end": length, "middle": length // 2, "front": 0}[position]


def arrange_prompt(
    name: str, length: int, position: str = "end"
) -> tuple[list[int], list[int], int]:
    """Lay out `[SOS] ctx [name] . [EOS]` for one class.

    Args:
        name: the class name; underscores count as spaces.
        length: L, the number of context vectors.
        position: where the name stands: at the `end`, in the `middle` (half of the context before
            it) or at the `front`.

    Returns:
        Token ids (0 where the context goes), the L places of the context, the place of EOS.
    """
    text = clean_classname(name)
    # As CoOp has it: the name is read together with the full stop, with which a closing bracket
    # makes one token, but counted without it.
    joint, count = tokenizer().encode(f"{text}."), len(tokenizer().encode(text))
    name_ids, tail = joint[:count], joint[count:]
    before = vectors_before_name(length, position)
    sos, eos = tokenizer().encoder[START], tokenizer().encoder[END]

    ids = [sos] + [0] * before + name_ids + [0] * (length - before) + tail + [eos]
    behind = 1 + before + len(name_ids)
    slots = [*range(1, 1 + before), *range(behind, behind + length - before)]
    return ids, slots, len(ids) - 1


@dataclass(frozen=True)
class Blocks:
    """Attention queries in blocks of a few nodes, with the keys that each block attends to.

    Every node attends to its ancestors and itself. Nodes that are numbered one after the other have
    most ancestors in common, so a block of them needs few keys beside its own: small dense
    products, without a copy of the whole prompt for every class.

    Attributes:
        query_index: the B x n nodes that attend, the last one repeated to fill the last block.
        key_index: the B x k nodes that any query of a block attends to, padded with any node.
        mask: True where a query attends to a key.
        count: the number of queries in all.
    """

    query_index: Int[Tensor, "blocks queries"]
    key_index: Int[Tensor, "blocks keys"]
    mask: Bool[Tensor, "blocks queries keys"]
    count: int

    def to(self, device: torch.device) -> "Blocks":
        """The same blocks on a device."""
        return Blocks(
            self.query_index.to(device), self.key_index.to(device), self.mask.to(device), self.count
        )


def make_blocks(paths: Sequence[Sequence[int]]) -> Blocks:
    """Divide queries into blocks.

    Args:
        paths: of every query, its ancestors and itself, in order from the root.
    """
    count, size = len(paths), min(BLOCK, len(paths))
    filled = [*paths, *[paths[-1]] * (-count % size)]
    chunks = [filled[start : start + size] for start in range(0, len(filled), size)]
    needed = [sorted({node for path in chunk for node in path}) for chunk in chunks]
    keys = torch.zeros(len(chunks), max(map(len, needed)), dtype=torch.long)
    mask = torch.zeros(len(chunks), size, keys.shape[1], dtype=torch.bool)
    for block, (chunk, nodes) in enumerate(zip(chunks, needed, strict=True)):
        keys[block, : len(nodes)] = torch.tensor(nodes)
        column = {node: index for index, node in enumerate(nodes)}
        for row, path in enumerate(chunk):
            mask[block, row, [column[node] for node in path]] = True
    queries = torch.tensor([path[-1] for path in filled]).view(len(chunks), size)
    return Blocks(queries, keys, mask, count)


@dataclass(frozen=True)
class PromptTrie:
    """The trie of all classes' prompts in one group, its nodes numbered.

    Attributes:
        token: token id of each node, 0 where a context vector stands.
        slot: which of the L vectors stands at a node, -1 for a token.
        class_index: the class of a class-specific context vector, 0 for a generic one.
        position: position in the prompt.
        prefix_length: number of context vectors at the node and before it.
        ends: the node at each class's EOS.
        everywhere: blocks of all nodes, in the order of their numbers.
        at_ends: blocks of the nodes at EOS, in the order of the classes.
    """

    token: Int[Tensor, " nodes"]
    slot: Int[Tensor, " nodes"]
    class_index: Int[Tensor, " nodes"]
    position: Int[Tensor, " nodes"]
    prefix_length: Int[Tensor, " nodes"]
    ends: Int[Tensor, " classes"]
    everywhere: Blocks
    at_ends: Blocks

    def to(self, device: torch.device) -> "PromptTrie":
        """The same trie on a device."""
        return PromptTrie(**{key: value.to(device) for key, value in vars(self).items()})


def build_trie(
    prompts: Sequence[tuple[list[int], list[int], int]], class_specific: bool
) -> PromptTrie:
    """Number the nodes that prompts of `arrange_prompt` pass through.

    Args:
        prompts: of each class.
        class_specific: every class has context vectors of its own.
    """
    numbers: dict[tuple[int, int, int, int], int] = {}  # (parent, token, slot, class) -> node
    rows: list[tuple[int, ...]] = []
    path_to: list[list[int]] = []  # of each node
    ends = []
    for label, (ids, slots, _) in enumerate(prompts):
        slot_at = {place: slot for slot, place in enumerate(slots)}
        path: list[int] = []
        seen, node = 0, -1
        for place, token in enumerate(ids):
            slot = slot_at.get(place, -1)
            seen += slot >= 0
            owner = label if class_specific and seen else 0
            key = (node, token, slot, owner)
            if key not in numbers:
                numbers[key] = len(rows)
                rows.append((token, slot, owner, place, seen))
                path_to.append([*path, numbers[key]])
            node = numbers[key]
            path.append(node)
        ends.append(node)
    columns = dict(zip(NODE_COLUMNS, torch.tensor(rows).unbind(1), strict=True))
    return PromptTrie(
        **columns,
        ends=torch.tensor(ends),
        everywhere=make_blocks(path_to),
        at_ends=make_blocks([path_to[node] for node in ends]),
    )


@dataclass(frozen=True)
class GroupLayout:
    """Where the states of G groups of prompts are: R rows, each of them computed once.

    Attributes:
        node: the trie's node of a row.
        group: the group that it is computed in.
        context: the rows where a context vector stands.
        vector: which one, in (G, C', L) flattened.
        row: the row of every group's nodes.
        ends: the rows at EOS, (G, C).
    """

    node: Int[Tensor, " rows"]
    group: Int[Tensor, " rows"]
    context: Int[Tensor, " vectors"]
    vector: Int[Tensor, " vectors"]
    row: Int[Tensor, "groups nodes"]
    ends: Int[Tensor, "groups classes"]


def lay_out(trie: PromptTrie, first: Int[Tensor, "groups owners prefixes"]) -> GroupLayout:
    """Give every node of every group a row, unless an earlier group has computed the same.

    Args:
        trie: of one group.
        first: for every group, owner and number of vectors, the first group that has the same
            vectors up to there.
    """
    groups, owners, prefixes = first.shape
    nodes = torch.arange(len(trie.token), device=first.device)
    # (G, U): the group in which each node is computed
    source = first[:, trie.class_index, trie.prefix_length]
    computed = source == torch.arange(groups, device=first.device)[:, None]
    number = (computed.flatten().cumsum(0) - 1).view_as(computed)
    row = number[source, nodes]  # (G, U)
    group, node = computed.nonzero().unbind(1)
    context = (trie.slot[node] >= 0).nonzero()[:, 0]
    at = node[context]
    vector = (group[context] * owners + trie.class_index[at]) * (prefixes - 1) + trie.slot[at]
    return GroupLayout(node, group, context, vector, row, row[:, trie.ends])


def independent(groups: int, owners: int, length: int) -> Int[Tensor, "groups owners prefixes"]:
    """`first` for groups of their own vectors: they have in common what has no vector before it."""
    first = torch.arange(groups).view(-1, 1, 1).repeat(1, owners, length + 1)
    first[..., 0] = 0
    return first


def first_with_the_same(
    ctx: Float[Tensor, "groups owners length width"],
) -> Int[Tensor, "groups owners prefixes"]:
    """`first` by content: groups share what they compute from equal vectors."""
    _, symbols = torch.unique(ctx.flatten(0, 2), dim=0, return_inverse=True)
    symbols = symbols.view(ctx.shape[:3])
    same = (symbols.unsqueeze(1) == symbols.unsqueeze(0)).int().cumprod(-1)  # (G, G, C', L)
    return torch.nn.functional.pad(same.argmax(dim=1), (1, 0))
