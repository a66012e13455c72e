"""Text features of soft prompts: `[SOS] ctx [class name] . [EOS]` through CLIP's frozen text tower.

Prompts have a leading group dimension G: a corrupted copy, one of several prompt sets or the prompt
of one image is just one more group of the same batch. CoOp (Zhou et al., IJCV 2022), section 3.2.

The tower is causal. A feature is read at EOS, so nothing behind the longest prompt is computed; and
what all classes have in common at the start (SOS, and a generic context that stands before the
names) has the same hidden states for every class and is computed once per group.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .clip import tokenizer
from .errors import PromptError
from .model import CLIP
from .transformer import ResidualAttentionBlock

POSITIONS = ("end", "middle", "front")


def clean_classname(name: str) -> str:
    """Turn a dataset's class name into text: underscores become spaces."""
    return name.replace("_", " ")


def _vectors_before_name(length: int, position: str) -> int:
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
    name_ids = tokenizer().encode(text)
    tail = tokenizer().encode(f"{text}.")[len(name_ids) :]
    before = _vectors_before_name(length, position)
    sos, eos = tokenizer().encoder["<|startoftext|>"], tokenizer().encoder["<|endoftext|>"]

    ids = [sos] + [0] * before + name_ids + [0] * (length - before) + tail + [eos]
    behind = 1 + before + len(name_ids)
    slots = [*range(1, 1 + before), *range(behind, behind + length - before)]
    return ids, slots, len(ids) - 1


class SoftPromptEncoder(nn.Module):
    """Encodes soft prompts for C fixed classes: ctx (G, L, D) -> text features (G, C, E)."""

    frozen: Tensor
    slots: Tensor
    eos: Tensor

    def __init__(
        self,
        clip_model: CLIP,
        classnames: Sequence[str],
        length: int,
        position: str = "end",
    ) -> None:
        """Look up the frozen token embeddings of every class once.

        Args:
            clip_model: the CLIP whose text tower encodes; used as it is, never trained here.
            classnames: C names.
            length: L, the number of context vectors.
            position: `end`, `middle` or `front`.

        Raises:
            PromptError: an unknown position, or a prompt that the text tower cannot hold.
        """
        super().__init__()
        if position not in POSITIONS:
            raise PromptError(
                f"The class token position is {position!r}, but must be one of "
                f"{', '.join(POSITIONS)}."
            )
        self.clip_model = clip_model
        self.before = _vectors_before_name(length, position)
        rows = [arrange_prompt(name, length, position) for name in classnames]
        self._check_lengths(classnames, [len(ids) for ids, _, _ in rows], length)

        longest = max(len(ids) for ids, _, _ in rows)
        tokens = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _, _ in rows])
        device = clip_model.token_embedding.weight.device
        with torch.no_grad():
            frozen = clip_model.token_embedding(tokens.to(device)).to(clip_model.dtype)
        self.register_buffer("frozen", frozen, persistent=False)
        for key, column in (("slots", 1), ("eos", 2)):
            values = torch.tensor([row[column] for row in rows], device=device)
            self.register_buffer(key, values, persistent=False)

    def _check_lengths(self, classnames: Sequence[str], lengths: Sequence[int], n_ctx: int) -> None:
        limit = self.clip_model.positional_embedding.shape[0]
        longest = max(range(len(lengths)), key=lengths.__getitem__)
        if lengths[longest] > limit:
            raise PromptError(
                f"The prompt of class {classnames[longest]!r} with {n_ctx} context tokens takes "
                f"{lengths[longest]} tokens, but the text tower holds {limit}; "
                "use a shorter context or class name."
            )

    def assemble(
        self,
        ctx: Float[Tensor, "groups length width"] | Float[Tensor, "groups classes length width"],
    ) -> tuple[Float[Tensor, "groups shared width"], Float[Tensor, "groups classes own width"]]:
        """Put every group's context between the frozen embeddings.

        Returns:
            What the prompts of all classes start with, and how each class goes on.
        """
        ctx = ctx.to(self.frozen.dtype)
        groups, width = len(ctx), ctx.shape[-1]
        sos = self.frozen[0, :1].expand(groups, 1, width)
        if ctx.dim() == 3:
            shared = torch.cat([sos, ctx[:, : self.before]], dim=1)
            own_ctx = ctx[:, self.before :].unsqueeze(1)
        else:
            shared, own_ctx = sos, ctx
        start, count = shared.shape[1], own_ctx.shape[2]
        frozen = self.frozen[:, start:].expand(groups, -1, -1, -1)
        if not count:
            return shared, frozen
        shape = (groups, len(self.frozen), count, width)
        places = (self.slots[:, -count:] - start)[None, :, :, None].expand(shape)
        return shared, frozen.scatter(2, places, own_ctx.expand(shape))

    def forward(
        self,
        ctx: Float[Tensor, "groups length width"] | Float[Tensor, "groups classes length width"],
    ) -> Float[Tensor, "groups classes embed"]:
        """Text features at EOS, after the projection, not normalised.

        Args:
            ctx: generic contexts (G, L, D) or class-specific ones (G, C, L, D).
        """
        shared, own = self.assemble(ctx)
        groups, classes, _, _ = own.shape
        start = shared.shape[1]
        positions = self.clip_model.positional_embedding[: self.frozen.shape[1]].to(own.dtype)
        # (length, batch, width), as the tower has it; the classes of a group lie side by side.
        shared = (shared + positions[:start]).transpose(0, 1)
        own = (own + positions[start:]).flatten(0, 1).transpose(0, 1)
        mask = _own_mask(start, len(own), own.device)
        for block in self.clip_model.transformer.blocks:
            shared, own = _shared_block(block, shared, own, classes, mask)
        eos = (self.eos - start).repeat(groups)
        at_eos = own[eos, torch.arange(len(eos), device=own.device)]
        features = self.clip_model.ln_final(at_eos) @ self.clip_model.text_projection
        return features.unflatten(0, (groups, classes))


def _own_mask(start: int, length: int, device: torch.device) -> Bool[Tensor, "length keys"]:
    """Which keys a class's own tokens see: all shared ones, and their own up to themselves."""
    return torch.ones(length, start + length, dtype=torch.bool, device=device).tril(start)


def _shared_block(
    block: ResidualAttentionBlock,
    shared: Float[Tensor, "start groups width"],
    own: Float[Tensor, "length prompts width"],
    classes: int,
    mask: Bool[Tensor, "length keys"],
) -> tuple[Float[Tensor, "start groups width"], Float[Tensor, "length prompts width"]]:
    """One block on prompts whose first states are the same within a group of classes."""
    attention = block.attn
    query, *memory = attention.project(block.ln_1(shared))
    own_query, *own_memory = attention.project(block.ln_1(own))
    keys, values = (
        torch.cat([common.repeat_interleave(classes, 0), mine], dim=2)
        for common, mine in zip(memory, own_memory, strict=True)
    )
    shared = shared + attention.attend(query, *memory, causal=True)
    own = own + attention.attend(own_query, keys, values, mask=mask)
    return shared + block.mlp(block.ln_2(shared)), own + block.mlp(block.ln_2(own))
