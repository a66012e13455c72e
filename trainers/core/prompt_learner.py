"""The learnable part: soft prompts, generic or class-specific, random or from given words."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clip.model import CLIP
from clip.prompt_layout import clean_classname
from clip.simple_tokenizer import tokenizer

INIT_STD = 0.02

# What other CoOp-family code saves with its prompts: embeddings of one set of class names.
CLASSNAME_BUFFERS = ("token_prefix", "token_suffix")


def embed_words(clip_model: CLIP, words: str) -> Float[Tensor, "length width"]:
    """Token embeddings of the words, as a context to start from (CoOp's CTX_INIT)."""
    weight = clip_model.token_embedding.weight
    ids = torch.tensor(tokenizer().encode(clean_classname(words)), device=weight.device)
    with torch.no_grad():
        return clip_model.token_embedding(ids).float()


def prompt_length(n_ctx: int, ctx_init: str) -> int:
    """L, the number of context vectors: that of the given words' tokens, if there are words."""
    return len(tokenizer().encode(clean_classname(ctx_init))) if ctx_init else n_ctx


class PromptLearner(nn.Module):
    """Soft prompts V: `ctx` of shape (L, D), with C and P in front where they apply.

    (C, L, D) when class-specific, (P, L, D) for several prompt sets, (C, P, L, D) for both. The
    vectors are kept in fp32 whatever the precision of CLIP, so that small updates count.
    """

    def __init__(
        self,
        clip_model: CLIP,
        num_classes: int,
        n_ctx: int = 16,
        ctx_init: str = "",
        class_specific: bool = False,
        num_sets: int | None = None,
    ) -> None:
        """Initialise with normal noise of std 0.02, or with the embeddings of given words.

        Args:
            clip_model: gives the width D and the word embeddings.
            num_classes: C.
            n_ctx: L; the words of `ctx_init` decide when they are given.
            ctx_init: words such as "a photo of a", or "" for random vectors.
            class_specific: one context per class (CoOp's CSC) instead of one for all.
            num_sets: P, how many prompts every class has (PLOT); None for one without a dimension.
        """
        super().__init__()
        weight = clip_model.token_embedding.weight
        sets = [num_classes] if class_specific else []
        if num_sets is not None:
            sets.append(num_sets)
        length = prompt_length(n_ctx, ctx_init)
        ctx = torch.empty(*sets, length, weight.shape[1], device=weight.device)
        nn.init.normal_(ctx, std=INIT_STD)
        if ctx_init:
            words = embed_words(clip_model, ctx_init)
            # Equal prompt sets would stay equal for ever: the noise tells the others from the
            # first, which starts as the words alone.
            ctx = ctx + words if num_sets is not None else words.expand_as(ctx).clone()
            if num_sets is not None:
                ctx[..., 0, :, :] = words
        self.ctx = nn.Parameter(ctx)
        self.register_load_state_dict_pre_hook(_drop_classname_buffers)

    @property
    def length(self) -> int:
        """L, the number of context vectors."""
        return self.ctx.shape[-2]

    def forward(self) -> Float[Tensor, "1 *sets length width"]:
        """The prompts as one group: (1, L, D) or (1, C, L, D)."""
        return self.ctx.unsqueeze(0)


def _drop_classname_buffers(
    _module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any
) -> None:
    """Let prompts load for other classes than those they were learned with."""
    for name in CLASSNAME_BUFFERS:
        state_dict.pop(prefix + name, None)
