"""The oracle of the text features: every prompt padded and encoded by itself, as CoOp does."""

from collections.abc import Callable, Sequence

from torch import Tensor

from benchmarks.reference_clip import ReferencePrompts, build_reference_clip
from clip.model import CLIP


def reference_prompts(
    model: CLIP, classnames: Sequence[str], ctx: Tensor, position: str = "end"
) -> Tensor:
    """CoOp's prompts (C, context, D) for ctx (L, D) or (C, L, D)."""
    return ReferencePrompts(model, classnames, ctx.shape[-2], position)(ctx)


def reference_encoder(
    model: CLIP, classnames: Sequence[str], length: int, position: str = "end"
) -> Callable[[Tensor], Tensor]:
    """A function from ctx to the text features (C, E), by the reference implementation of CLIP."""
    reference = build_reference_clip(model)
    prompts = ReferencePrompts(reference, classnames, length, position)
    return lambda ctx: reference.encode_prompts(prompts(ctx), prompts.eos)
