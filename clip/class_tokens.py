"""Encode soft prompts into which class tokens are inserted before a block of the text encoder.

TCP (Yao et al., CVPR 2024): before block l, the states at positions 1 to 4 become

    x[1:5] = w K_c + (1 - w) x[1:5]   for class c, without positional embedding.

Up to block l, all classes share the prefix `[SOS] ctx`; from block l on, they share only SOS. With
w = 1, block l - 1 uses the context only as keys and values, and the class tokens' states are the
same for all groups, since they depend on no context vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from .errors import PromptError
from .model import CLIP
from .packed_transformer import PackedPrompts
from .prompt_layout import PromptTrie, build_trie, clean_classname, lay_out
from .simple_tokenizer import END, START, tokenizer
from .text_encoding import SoftPromptEncoder

COUNT = 4  # class tokens, and context vectors
SLOTS = tuple(range(1, 1 + COUNT))  # their positions


def check_layer(layer: int, blocks: int) -> None:
    """Raise an error if the text encoder has no such block.

    Raises:
        PromptError: the layer is negative or not below the number of blocks.
    """
    if not 0 <= layer < blocks:
        raise PromptError(
            f"The class tokens are inserted before block {layer} (INSERT_LAYER), but the text "
            f"encoder has blocks 0 to {blocks - 1}; choose one of these."
        )


def arrange_text(template: str, name: str) -> list[int]:
    """Return the ids of SOS, the template with a class name, and EOS; 0 for the context vectors.

    Raises:
        PromptError: fewer than 4 tokens, which the context vectors replace, precede the name.
    """
    encode, ids = tokenizer().encode, tokenizer().encoder
    before = template.partition("{}")[0]
    if len(encode(before)) < COUNT:
        raise PromptError(
            f"The prompt {template!r} has {len(encode(before))} tokens before {{}}, but the "
            f'context replaces {COUNT}; begin it with "X X X X".'
        )
    text = encode(template.replace("{}", clean_classname(name)))
    return [ids[START], *[0] * COUNT, *text[COUNT:], ids[END]]


@dataclass(frozen=True)
class _After:
    """The blocks from the insertion on: their layout, and where each row comes from.

    Attributes:
        packed: the layout of all groups.
        source: indices into the states before the insertion, followed by the class tokens.
    """

    packed: PackedPrompts
    source: Int[Tensor, " rows"]


class ClassTokenEncoder(SoftPromptEncoder):
    """Encoder for ctx (G, 4, D) and class tokens (C, 4, D) -> text features (G, C, E)."""

    def __init__(
        self,
        clip_model: CLIP,
        classnames: Sequence[str],
        template: str,
        layer: int,
        weight: float = 1.0,
    ) -> None:
        """Lay out the prompts of all classes.

        Args:
            clip_model: the CLIP whose text encoder is used; it is not changed.
            classnames: C names.
            template: the prompt with {} for the name; the context replaces its first 4 tokens.
            layer: l, the block before which the class tokens are inserted, from 0.
            weight: w, the share of the class tokens.

        Raises:
            PromptError: there is no such block, or a prompt is too short or too long.
        """
        super().__init__(clip_model, classnames, COUNT)
        check_layer(layer, len(clip_model.transformer.blocks))
        self.layer, self.weight = layer, weight
        self.prompts = [(arrange_text(template, name), list(SLOTS)) for name in classnames]
        self._check_lengths(classnames)
        self._after: dict[tuple[object, ...], _After] = {}

    def _encode(
        self, ctx: Tensor, span: tuple[int, int], *inputs: Tensor
    ) -> Float[Tensor, "groups classes embed"]:
        classes = self._class_range(False, span)
        before, states = self._embed(ctx, classes)
        blocks, groups = self.clip_model.transformer.blocks, len(ctx)
        if self.layer:
            states = before.encode(blocks[: self.layer], states)
        else:
            states = functional.embedding(before.ends, states)
        tokens = inputs[0][slice(*span)].to(states.dtype)
        if self.weight != 1:
            context = states.unflatten(0, (groups, -1))[:, None, 1 : 1 + COUNT]
            tokens = self.weight * tokens + (1 - self.weight) * context
        after = self._blocks_after(span, groups, before.dtype, len(classes.trie.ends))
        rows = functional.embedding(after.source, torch.cat([states, tokens.flatten(0, -2)]))
        return self._features(after.packed.encode(blocks[self.layer :], rows), groups, classes)

    def _kept(self, span: tuple[int, int]) -> dict[tuple[int, ...], int]:
        """Number the tokens whose states enter block l, each with all tokens before it."""
        replaced = SLOTS if self.weight == 1 else ()
        prefixes = (
            tuple(ids[: position + 1])
            for ids, _ in self.prompts[slice(*span)]
            for position in range(len(ids))
            if position not in replaced
        )
        return {prefix: number for number, prefix in enumerate(dict.fromkeys(prefixes))}

    def _trie(self, class_specific: bool, span: tuple[int, int]) -> PromptTrie:
        """Return the trie before the insertion, which ends at every state that is used after it."""
        prompts = [
            (list(ids), [slot for slot in SLOTS if slot < len(ids)]) for ids in self._kept(span)
        ]
        return build_trie(prompts, class_specific=False)

    def _count_states(self, class_specific: bool, span: tuple[int, int]) -> int:
        return super()._count_states(class_specific, span) + COUNT * (span[1] - span[0])

    def saved_bytes(self, ctx: Tensor) -> int:
        """Estimate the bytes that autograd saves, as if all blocks had the class tokens."""
        span = 0, len(self.prompts)
        return (
            super().saved_bytes(ctx)
            * self._count_states(False, span)
            // super()._count_states(False, span)
        )

    def _blocks_after(
        self, span: tuple[int, int], groups: int, dtype: torch.dtype, ends: int
    ) -> _After:
        """Return the layout from block l on, made once; `ends` states per group precede it."""
        device = self.clip_model.token_embedding.weight.device
        key = (span, groups, dtype, device)
        if key not in self._after:
            prompts = self.prompts[slice(*span)]
            # The token after the class tokens counts as a fifth vector, the first that differs
            # between groups if w = 1.
            trie = build_trie([(ids, [*slots, COUNT + 1]) for ids, slots in prompts], True)
            first_group = torch.arange(groups).view(-1, 1, 1).repeat(1, len(prompts), COUNT + 2)
            first_group[..., : COUNT + 1 if self.weight == 1 else 1] = 0
            trie, first_group = trie.to(device), first_group.to(device)
            layout = lay_out(trie, first_group, shares=groups > 1)
            nodes = self._sources(trie, span, groups * ends)
            at_tokens = nodes >= groups * ends
            step = torch.where(at_tokens, 0 if self.weight == 1 else len(prompts) * COUNT, ends)
            source = nodes[layout.node] + step[layout.node] * layout.group
            self._after[key] = _After(PackedPrompts(trie, layout, dtype), source)
        return self._after[key]

    def _sources(
        self, trie: PromptTrie, span: tuple[int, int], tokens: int
    ) -> Int[Tensor, " nodes"]:
        """Return the index of each node's state in group 0; the class tokens start at `tokens`."""
        kept, prompts = self._kept(span), self.prompts[slice(*span)]
        places = zip(trie.position.tolist(), trie.class_index.tolist(), strict=True)
        return torch.tensor(
            [
                tokens + label * COUNT + position - 1
                if position in SLOTS
                else kept[tuple(prompts[label][0][: position + 1])]
                for position, label in places
            ],
            device=trie.token.device,
        )
