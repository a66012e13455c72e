"""The plain way: every prompt padded to the full context and sent through the tower by itself.

What the framework computes cheaply is compared with this. It follows CoOp's published code: the
prompt is a row of token embeddings in which the context takes the place of placeholder words.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clip.clip import tokenize
from clip.model import CLIP
from clip.simple_tokenizer import tokenizer


def plain_prompts(
    model: CLIP, classnames: Sequence[str], ctx: Tensor, position: str
) -> Float[Tensor, "classes context width"]:
    """CoOp's prompts for ctx (L, D) or (C, L, D), padded to the tower's whole context."""
    names = [name.replace("_", " ") for name in classnames]
    context, length = model.positional_embedding.shape[0], ctx.shape[-2]
    fillers = " ".join(["X"] * length)
    rows = []
    for index, name in enumerate(names):
        vectors = ctx if ctx.dim() == 2 else ctx[index]
        ids = tokenize(f"{fillers} {name}.", context_length=context)[0]
        row = model.token_embedding(ids.to(ctx.device)).to(ctx.dtype)
        prefix, suffix = row[:1], row[1 + length :]
        count = len(tokenizer().encode(name))
        half = length // 2
        parts = {
            "end": [prefix, vectors, suffix],
            "middle": [prefix, vectors[:half], suffix[:count], vectors[half:], suffix[count:]],
            "front": [prefix, suffix[:count], vectors, suffix[count:]],
        }[position]
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def plain_text_features(
    model: CLIP, classnames: Sequence[str], ctx: Tensor, position: str = "end"
) -> Float[Tensor, "classes embed"]:
    """Text features of the prompts, one full-length pass of the tower per class."""
    prompts = plain_prompts(model, classnames, ctx, position)
    length, context = ctx.shape[-2], prompts.shape[1]
    features = []
    for name, prompt in zip(classnames, prompts, strict=True):
        text = " ".join(["X"] * length) + " " + name.replace("_", " ") + "."
        eos = int(tokenize(text, context_length=context)[0].argmax())
        hidden = prompt + model.positional_embedding.to(prompt.dtype)
        hidden = model.transformer(hidden.unsqueeze(1))[:, 0]
        features.append(model.ln_final(hidden)[eos] @ model.text_projection)
    return torch.stack(features)
