"""Learnable context vectors: unified or class-specific, initialised randomly or from words."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clip.model import CLIP
from clip.prompt_layout import clean_classname
from clip.simple_tokenizer import tokenizer

INIT_STD = 0.02

# Buffers that CoOp and its descendants save with the prompts: embeddings of the class names.
CLASSNAME_BUFFERS = ("token_prefix", "token_suffix")


def embed_words(clip_model: CLIP, words: str) -> Float[Tensor, "length width"]:
    """Return the token embeddings of words to initialise the context with (CoOp's CTX_INIT)."""
    weight = clip_model.token_embedding.weight
    ids = torch.tensor(tokenizer().encode(clean_classname(words)), device=weight.device)
    with torch.no_grad():
        return clip_model.token_embedding(ids).float()


def prompt_length(n_ctx: int, ctx_init: str) -> int:
    """Return L, the number of context vectors: the number of tokens of CTX_INIT, else N_CTX."""
    return len(tokenizer().encode(clean_classname(ctx_init))) if ctx_init else n_ctx


class PromptLearner(nn.Module):
    """Context vectors V: `ctx` of shape (L, D).

    The shape is (C, L, D) if class-specific, (P, L, D) for several prompt sets, (C, P, L, D) for
    both. The vectors are always in fp32, since fp16 would round small updates away.
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
        """Initialise with normal noise of std 0.02, or with the embeddings of words.

        Args:
            clip_model: provides the width D and the token embeddings.
            num_classes: C.
            n_ctx: L, unless `ctx_init` determines it.
            ctx_init: words such as "a photo of a", or "" for random vectors.
            class_specific: one context per class (CoOp's CSC) instead of one for all.
            num_sets: P, the number of prompts per class (PLOT); None for one, without dimension P.
        """
        super().__init__()
        weight = clip_model.token_embedding.weight
        sets = [num_classes] if class_specific else []
        if num_sets is not None:
            sets.append(num_sets)
        length = prompt_length(n_ctx, ctx_init)
        # Drawn on the CPU, so that every device starts from the same vectors.
        ctx = nn.init.normal_(torch.empty(*sets, length, weight.shape[1]), std=INIT_STD)
        ctx = ctx.to(weight.device)
        if ctx_init:
            words = embed_words(clip_model, ctx_init)
            # Equal prompt sets would get equal gradients and stay equal, so noise is added to all
            # but the first.
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
        """Return the context vectors as one group, with a leading dimension of 1."""
        return self.ctx.unsqueeze(0)


def _drop_classname_buffers(
    _module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any
) -> None:
    """Drop the embeddings of class names, so that prompts load for other classes, too."""
    for name in CLASSNAME_BUFFERS:
        state_dict.pop(prefix + name, None)
