"""OpenAI's public functions (`load`, `tokenize`, `available_models`) and those that trainers use.

Names and signatures are those of OpenAI's package, so that code written for it runs unchanged.
CoOp-style trainers load weights with `_MODELS`, `_download` and `build_model`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from .build import build_model
from .download import MODELS as _MODELS
from .download import fetch
from .errors import PromptError, WeightsError
from .model import CLIP
from .simple_tokenizer import END, START, tokenizer
from .weights import load_clip

__all__ = [
    "_MODELS",
    "_download",
    "available_models",
    "build_model",
    "load",
    "tokenize",
    "tokenizer",
]


def available_models() -> list[str]:
    """Return the names of OpenAI's models; `load` also takes those of `load_clip`."""
    return list(_MODELS)


def _download(url: str, root: str | None = None) -> str:
    """Download a URL of `_MODELS` unless the file exists, and return the file's path."""
    return str(fetch(url, root))


def load(
    name: str,
    device: str | torch.device = "cpu",
    jit: bool = False,
    download_root: str | None = None,
) -> tuple[CLIP, Callable[[Any], Tensor]]:
    """Load a CLIP in fp32 together with the transform of its images.

    Args:
        name: a name of `available_models()`, or any other name or path that `load_clip` takes.
        device: device of the model.
        jit: must be False; code in a weights file is never run.
        download_root: folder of downloaded weights; None for `~/.cache/clip`.

    Returns:
        The model in evaluation mode, and a function from a PIL image to a (3, H, W) tensor.

    Raises:
        WeightsError: the weights cannot be loaded or are not those of a CLIP.
    """
    if jit:
        raise WeightsError(
            "jit=True would run the code in the weights file, which is not supported; "
            "leave jit at False."
        )
    from torchvision import transforms  # slow to import, and only needed here

    loaded = load_clip(name, device=device, download_root=download_root)
    resolution = loaded.model.visual.input_resolution
    steps = [
        transforms.Resize(resolution, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(resolution),
        lambda image: image.convert("RGB"),
        transforms.ToTensor(),
        transforms.Normalize(loaded.pixel_mean, loaded.pixel_std),
    ]
    return loaded.model, transforms.Compose(steps)


def tokenize(
    texts: str | Sequence[str], context_length: int = 77, truncate: bool = False
) -> Int[Tensor, "texts length"]:
    """Return the token ids of texts with start and end token, padded with 0.

    Args:
        texts: one text or several.
        context_length: length of every row.
        truncate: cut texts that are too long before their end token instead of refusing them.

    Returns:
        An int32 tensor, one row per text.

    Raises:
        PromptError: a text is too long and `truncate` is False.
    """
    texts = [texts] if isinstance(texts, str) else texts
    start, end = tokenizer().encoder[START], tokenizer().encoder[END]
    result = torch.zeros(len(texts), context_length, dtype=torch.int)
    for row, text in zip(result, texts, strict=True):
        ids = [start, *tokenizer().encode(text), end]
        if len(ids) > context_length:
            if not truncate:
                raise PromptError(f"Input {text} is too long for context length {context_length}")
            ids = [*ids[: context_length - 1], end]
        row[: len(ids)] = torch.tensor(ids)
    return result
