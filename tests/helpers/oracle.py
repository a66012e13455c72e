"""The oracle of the text features: every prompt padded and encoded by itself, as CoOp does."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from benchmarks.reference_clip import ReferencePrompts, build_reference_clip
from clip.model import CLIP


def reference_prompts(
    model: CLIP, classnames: Sequence[str], ctx: Tensor, position: str = "end"
) -> Float[Tensor, "classes context width"]:
    """CoOp's prompts for ctx (L, D) or (C, L, D), padded to the text encoder's whole context."""
    return ReferencePrompts(model, classnames, ctx.shape[-2], position)(ctx)


def reference_text_features(
    model: CLIP, classnames: Sequence[str], ctx: Tensor, position: str = "end"
) -> Float[Tensor, "classes embed"]:
    """Text features of the prompts, by the reference implementation of CLIP."""
    reference = build_reference_clip(model)
    prompts = ReferencePrompts(reference, classnames, ctx.shape[-2], position)
    return reference.encode_prompts(prompts(ctx), prompts.eos)
