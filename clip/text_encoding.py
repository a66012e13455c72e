"""Encode soft prompts `[SOS] ctx [class name] . [EOS]` with CLIP's frozen text encoder.

Prompts have a leading group dimension G: a corrupted copy, one of several prompt sets or the prompt
of one image is one more group of the same batch. CoOp (Zhou et al., IJCV 2022), section 3.2.

The result equals that of a full pass over 77 tokens, gradients included, at a fraction of its cost:
nothing after EOS is computed, and states that prompts share are computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from .errors import PromptError
from .model import CLIP
from .packed_transformer import PackedPrompts
from .prompt_layout import (
    POSITIONS,
    PromptTrie,
    arrange_prompt,
    begin_equally,
    build_trie,
    first_group_by_content,
    lay_out,
    lay_out_independent,
)

# Bytes of states in one pass: 1,024 states of width 512, or 4,096 of width 128. More would not fit
# a CPU's caches (16 groups of 100 classes of width 512 at once took a third longer than one by
# one); a GPU needs more to be busy.
BYTES_AT_ONCE = {"cpu": 2 << 20}
BYTES_AT_ONCE_ELSEWHERE = 128 << 20

# Floats that autograd saves per state and layer, in units of the width: the inputs of both norms
# (2) and of the activation (4), queries and attention output (2), keys and values once for every
# attention block with them (3 to 4).
SAVED_WIDTHS = 12


# Corrupted prompts share states on a CPU only if more than this part of the states can be shared.
WORTH_SHARING = 0.1


@dataclass
class _ClassRange:
    """Trie of a range of classes, its frozen inputs, and its layouts of independent groups."""

    trie: PromptTrie
    classes: int
    frozen: Float[Tensor, "nodes width"]
    shareable: float  # the part of the states before the last context vector
    layouts: dict[tuple[int, torch.dtype], PackedPrompts] = field(default_factory=dict)


class SoftPromptEncoder(nn.Module):
    """Encoder of soft prompts for C fixed classes: ctx (G, L, D) -> text features (G, C, E).

    Attributes:
        memory_limit: bytes that autograd may save. If the states need more, the backward pass
            computes them again instead (activation checkpointing), part by part.
    """

    memory_limit = 4 << 30
    draws = False  # whether a pass draws random numbers (dropout), which recomputing must repeat

    def __init__(
        self,
        clip_model: CLIP,
        classnames: Sequence[str],
        length: int,
        position: str = "end",
        words_behind: str = "",
    ) -> None:
        """Lay out the prompts of all classes.

        Args:
            clip_model: the CLIP whose text encoder is used; it is not changed.
            classnames: C names.
            length: L, the number of context vectors.
            position: `end`, `middle` or `front`.
            words_behind: fixed words before every name, which stand behind the context at `end`.

        Raises:
            PromptError: the position is unknown, or a prompt is too long for the text encoder.
        """
        super().__init__()
        if position not in POSITIONS:
            raise PromptError(
                f"The class token position is {position!r}, but must be one of "
                f"{', '.join(POSITIONS)}."
            )
        self.clip_model = clip_model
        self.length = length
        names = [f"{words_behind} {name}".strip() for name in classnames]
        self.prompts = [arrange_prompt(name, length, position) for name in names]
        self._check_lengths(classnames)
        self._ranges: dict[tuple[object, ...], _ClassRange] = {}

    def _check_lengths(self, classnames: Sequence[str]) -> None:
        lengths = [len(ids) for ids, _ in self.prompts]
        limit = self.clip_model.positional_embedding.shape[0]
        longest = max(range(len(lengths)), key=lengths.__getitem__)
        if lengths[longest] > limit:
            raise PromptError(
                f"The prompt of class {classnames[longest]!r} with {self.length} context tokens "
                f"takes {lengths[longest]} tokens, but the text encoder holds {limit}; "
                "use a shorter context or class name."
            )

    def forward(
        self,
        ctx: Float[Tensor, "groups length width"] | Float[Tensor, "groups classes length width"],
        *inputs: Tensor,
    ) -> Float[Tensor, "groups classes embed"]:
        """Return the text features at EOS after the projection, not normalised.

        Args:
            ctx: generic contexts (G, L, D) or class-specific ones (G, C, L, D).
            inputs: what else a subclass's `_encode` takes.
        """
        return self._encode_in_parts(ctx, *inputs)

    def _encode_in_parts(self, ctx: Tensor, *inputs: Tensor) -> Tensor:
        """Encode groups and classes in parts of limited size; see BYTES_AT_ONCE."""
        class_specific = self._class_specific(ctx)
        needs_gradient = torch.is_grad_enabled() and self.learns(ctx)
        at_once = self._states_at_once(ctx)
        spans = self._spans(class_specific, at_once)
        largest = max(self._count_states(class_specific, span) for span in spans)
        recompute = needs_gradient and self.saved_bytes(ctx) > self.memory_limit
        features = []
        for groups in ctx.split(max(1, at_once // largest)):
            for span in spans:
                contexts = groups[:, slice(*span)] if class_specific else groups
                features.append(
                    checkpoint(
                        *(self._encode, contexts, span, *inputs),
                        use_reentrant=False,
                        preserve_rng_state=self.draws,
                    )
                    if recompute
                    else self._encode(contexts, span, *inputs)
                )
        rows = [
            torch.cat(features[start : start + len(spans)], dim=1)
            for start in range(0, len(features), len(spans))
        ]
        return torch.cat(rows)

    def _class_specific(self, ctx: Tensor) -> bool:
        return ctx.dim() == 4

    def learns(self, ctx: Tensor) -> bool:
        """Return whether the features of these contexts have a gradient."""
        return ctx.requires_grad

    def _states_at_once(self, ctx: Tensor) -> int:
        limit = BYTES_AT_ONCE.get(ctx.device.type, BYTES_AT_ONCE_ELSEWHERE)
        return max(1, limit // (ctx.shape[-1] * self.clip_model.dtype.itemsize))

    def _encode(
        self, ctx: Tensor, span: tuple[int, int], *inputs: Tensor
    ) -> Float[Tensor, "groups classes embed"]:
        """Return the text features of the classes of a span, computed in one pass."""
        classes = self._class_range(self._class_specific(ctx), span)
        packed, states = self._embed(ctx, classes)
        at_eos = packed.encode(self.clip_model.transformer.blocks, states)
        return self._features(at_eos, len(ctx), classes)

    def _embed(
        self, ctx: Tensor, classes: _ClassRange
    ) -> tuple[PackedPrompts, Float[Tensor, "rows width"]]:
        """Return the layout of all groups' states, and those that enter the first block."""
        vectors = ctx if ctx.dim() == 4 else ctx.unsqueeze(1)
        vectors = vectors.to(classes.frozen.dtype)  # (G, C or 1, L, D)
        packed = self._packed(classes, vectors)
        layout, states = packed.layout, classes.frozen
        if len(ctx) > 1:  # with one group, rows are nodes
            states = states.index_select(0, layout.node)
        # Its gradient, unlike that of index_select, sums in a deterministic order.
        context = functional.embedding(layout.vector, vectors.flatten(0, 2))
        return packed, states.index_add(0, layout.context, context)

    def _features(
        self, at_eos: Float[Tensor, "ends width"], groups: int, classes: _ClassRange
    ) -> Float[Tensor, "groups classes embed"]:
        features = self.clip_model.ln_final(at_eos) @ self.clip_model.text_projection
        features = features.unflatten(0, (groups, -1))
        return features if features.shape[1] == classes.classes else features[:, : classes.classes]

    def _packed(self, classes: _ClassRange, vectors: Tensor) -> PackedPrompts:
        groups, contexts, _, _ = vectors.shape
        learns = torch.is_grad_enabled() and vectors.requires_grad
        # Finding equal vectors would stall an accelerator for the few states that it saves.
        on_cpu = vectors.device.type == "cpu"
        worth_it = not learns and on_cpu and classes.shareable > WORTH_SHARING
        if worth_it and begin_equally(vectors):
            layout = lay_out(classes.trie, first_group_by_content(vectors))
            return PackedPrompts(classes.trie, layout, _attention_dtype(vectors))
        return self._packed_apart(classes, vectors, groups, contexts)

    def _packed_apart(
        self, classes: _ClassRange, vectors: Tensor, groups: int, contexts: int = 1
    ) -> PackedPrompts:
        """Return the layout of groups that share no state, built at the first use."""
        key = (groups, _attention_dtype(vectors))
        if key not in classes.layouts:
            layout = lay_out_independent(classes.trie, groups, contexts, self.length)
            classes.layouts[key] = PackedPrompts(classes.trie, layout, key[1])
        return classes.layouts[key]

    def _class_range(self, class_specific: bool, span: tuple[int, int]) -> _ClassRange:
        """Return the trie of a span of classes with its frozen inputs, built at the first use."""
        weight = self.clip_model.token_embedding.weight
        key = (class_specific, span, weight.device, self.clip_model.dtype)
        if key not in self._ranges:
            trie = self._trie(class_specific, span).to(weight.device)
            with torch.no_grad():
                tokens = self.clip_model.token_embedding(trie.token).to(self.clip_model.dtype)
                positions = self.clip_model.positional_embedding[trie.position].to(tokens.dtype)
                frozen = tokens.masked_fill((trie.slot >= 0)[:, None], 0) + positions
            shareable = (trie.prefix_length < self.length).float().mean().item()
            self._ranges[key] = _ClassRange(trie, span[1] - span[0], frozen, shareable)
        return self._ranges[key]

    def _trie(self, class_specific: bool, span: tuple[int, int]) -> PromptTrie:
        return build_trie(self.prompts[slice(*span)], class_specific)

    def _spans(self, class_specific: bool, at_once: int) -> list[tuple[int, int]]:
        """Split the classes into ranges of about equal size, each small enough for one pass."""
        classes = len(self.prompts)
        count = min(classes, -(-self._count_states(class_specific, (0, classes)) // at_once))
        bounds = [classes * number // count for number in range(count + 1)]
        return list(pairwise(bounds))

    def _count_states(self, class_specific: bool, span: tuple[int, int]) -> int:
        return len(self._class_range(class_specific, span).frozen)

    def times_at_once(self, ctx: Tensor) -> int:
        """Return how many times these groups are best trained at once, at least 1.

        A CPU takes those of one pass, so that what is saved for the gradient stays in its caches.
        """
        fitting = self.memory_limit // self.saved_bytes(ctx)
        if ctx.device.type in BYTES_AT_ONCE:
            states = self._count_states(self._class_specific(ctx), (0, len(self.prompts)))
            fitting = min(fitting, self._states_at_once(ctx) // (len(ctx) * states))
        return max(1, fitting)

    def saved_bytes(self, ctx: Tensor) -> int:
        """Estimate the bytes that autograd saves for all groups and classes of `forward`."""
        states = self._class_range(self._class_specific(ctx), (0, len(self.prompts))).frozen
        blocks = len(self.clip_model.transformer.blocks)
        return len(ctx) * states.nbytes * blocks * SAVED_WIDTHS


def _attention_dtype(states: Tensor) -> torch.dtype:
    device = states.device.type
    mixed = torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if mixed else states.dtype
