"""Which hidden states the prompts of many classes and groups have in common.

The text tower is causal: the state at a place depends on what stands before it and nothing else.
So the prompts `[SOS] ctx [name] . [EOS]` of all classes form a trie, and every node of it is one
hidden state per layer. A class keeps nodes of its own from where it departs from all others; what
all classes start with, SOS and a generic context in front of the names, is the trunk. Groups of
prompts (corrupted copies, say) share the nodes up to the first vector that differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .clip import tokenizer

POSITIONS = ("end", "middle", "front")
NODE_COLUMNS = ("token", "slot", "owner", "place", "seen")


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
    sos, eos = tokenizer().encoder["<|startoftext|>"], tokenizer().encoder["<|endoftext|>"]

    ids = [sos] + [0] * before + name_ids + [0] * (length - before) + tail + [eos]
    behind = 1 + before + len(name_ids)
    slots = [*range(1, 1 + before), *range(behind, behind + length - before)]
    return ids, slots, len(ids) - 1


@dataclass(frozen=True)
class PromptTrie:
    """The trie of all classes' prompts in one group, its nodes numbered, those of the trunk first.

    Attributes:
        trunk: p, how many places the prompts of all classes have in common at the start.
        token: token id of each node, 0 where a context vector stands.
        slot: which of the L vectors stands at a node, -1 for a token.
        owner: whose vectors: the class of a class-specific context, 0 of a generic one.
        place: position in the prompt.
        seen: how many context vectors stand at the node and before it.
        tails: nodes of each class behind the trunk, (C, S), filled up with the last one, EOS.
        ends: where EOS stands in a class's tail.
    """

    trunk: int
    token: Int[Tensor, " nodes"]
    slot: Int[Tensor, " nodes"]
    owner: Int[Tensor, " nodes"]
    place: Int[Tensor, " nodes"]
    seen: Int[Tensor, " nodes"]
    tails: Int[Tensor, "classes tail"]
    ends: Int[Tensor, " classes"]

    def to(self, device: torch.device) -> "PromptTrie":
        """The same trie on a device."""
        tensors = {key: value.to(device) for key, value in vars(self).items() if key != "trunk"}
        return PromptTrie(self.trunk, **tensors)


def build_trie(
    prompts: Sequence[tuple[list[int], list[int], int]], trunk: int, class_specific: bool
) -> PromptTrie:
    """Number the nodes that prompts of `arrange_prompt` pass through.

    Args:
        prompts: of each class.
        trunk: how many places all prompts have in common at the start.
        class_specific: every class has context vectors of its own.
    """
    numbers: dict[tuple[int, int, int, int], int] = {}  # (parent, token, slot, owner) -> node
    rows: list[tuple[int, ...]] = []
    paths = []
    for label, (ids, slots, _) in enumerate(prompts):
        slot_at = {place: slot for slot, place in enumerate(slots)}
        path, seen, node = [], 0, -1
        for place, token in enumerate(ids):
            slot = slot_at.get(place, -1)
            seen += slot >= 0
            owner = label if class_specific and seen else 0
            key = (node, token, slot, owner)
            if key not in numbers:
                numbers[key] = len(rows)
                rows.append((token, slot, owner, place, seen))
            node = numbers[key]
            path.append(node)
        paths.append(path[trunk:])
    longest = max(map(len, paths))
    tails = [path + path[-1:] * (longest - len(path)) for path in paths]
    columns = dict(zip(NODE_COLUMNS, torch.tensor(rows).unbind(1), strict=True))
    ends = torch.tensor([len(path) - 1 for path in paths])
    return PromptTrie(trunk, tails=torch.tensor(tails), ends=ends, **columns)


@dataclass(frozen=True)
class GroupLayout:
    """Where the states of G groups of prompts are: R rows, each of them computed once.

    A cell is a place in a prompt: first those of the trunks (G x p), then of the tails (G x C x S).

    Attributes:
        node: the trie's node of a row.
        context: the rows where a context vector stands.
        vector: which one, in (G, C', L) flattened.
        row: the row of every cell.
        home: the cell of each row that stands for it.
        repeats: the other cells that are read; what only fills up a tail is not.
        ends: the rows at EOS, (G, C).
    """

    node: Int[Tensor, " rows"]
    context: Int[Tensor, " vectors"]
    vector: Int[Tensor, " vectors"]
    row: Int[Tensor, " cells"]
    home: Int[Tensor, " rows"]
    repeats: Int[Tensor, " repeats"]
    ends: Int[Tensor, "groups classes"]


def lay_out(trie: PromptTrie, first: Int[Tensor, "groups owners prefixes"]) -> GroupLayout:
    """Give every node of every group a row, unless an earlier group has computed the same.

    Args:
        trie: of one group.
        first: for every group, owner and number of vectors, the first group that has the same
            vectors up to there.
    """
    groups, (classes, tail) = len(first), trie.tails.shape
    nodes = torch.arange(len(trie.token), device=first.device)
    source = first[:, trie.owner, trie.seen]  # (G, U): the group that a node is computed in
    computed = source == torch.arange(groups, device=first.device)[:, None]
    number = (computed.flatten().cumsum(0) - 1).view_as(computed)
    row = number[source, nodes]  # (G, U)
    group, node = computed.nonzero().unbind(1)
    cells = torch.cat([row[:, : trie.trunk].flatten(), row[:, trie.tails].flatten()])
    index = torch.arange(len(cells), device=first.device)
    home = torch.full((len(group),), len(cells), device=first.device)
    home = home.scatter_reduce(0, cells, index, "amin")
    filled = torch.arange(tail, device=first.device) > trie.ends[:, None]  # (C, S)
    read = torch.cat(
        [
            torch.ones(groups * trie.trunk, dtype=torch.bool, device=first.device),
            ~filled.expand(groups, classes, tail).flatten(),
        ]
    )
    repeats = index[read & (home[cells] != index)]
    last = trie.tails.gather(1, trie.ends[:, None])[:, 0]

    context = (trie.slot[node] >= 0).nonzero()[:, 0]
    at = node[context]
    _, owners, length = first.shape
    vector = (group[context] * owners + trie.owner[at]) * (length - 1) + trie.slot[at]
    return GroupLayout(node, context, vector, cells, home, repeats, row[:, last])


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
