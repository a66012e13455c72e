"""Weights files of every accepted kind, brought to OpenAI's key names.

Accepted: TorchScript archives as OpenAI publishes them, state dicts saved by torch (bare or
under "state_dict"; OpenAI's or open_clip's names), and safetensors, whose metadata may describe the
model.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from .config import CLIPConfig, is_weight
from .errors import WeightsError
from .pickles import check_file, check_tensors
from .torchscript import is_torchscript, read_torchscript

# The normalisation of OpenAI's training images, which most of open_clip's models share.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)

PACKED_ROWS = "token_embedding.weight.rows"
PACKED_INDEX = "token_embedding.weight.index"
DEFAULT_VOCABULARY = 49408
LARGEST_VOCABULARY = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """Weights with OpenAI's key names, and what their file says beyond them.

    Attributes:
        state_dict: the tensors.
        hints: what shapes do not tell, where the file does: heads and activation.
        pixel_mean: mean of the channels that images are normalised with.
        pixel_std: their standard deviation.
    """

    state_dict: dict[str, Tensor]
    hints: dict[str, Any] = field(default_factory=dict)
    pixel_mean: tuple[float, ...] = PIXEL_MEAN
    pixel_std: tuple[float, ...] = PIXEL_STD


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a weights file of any accepted kind; its content decides, not its suffix.

    Raises:
        WeightsError: the file is damaged or of another kind.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if is_torchscript(path):
        return Checkpoint(openai_names(read_torchscript(path)))
    try:
        check_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        check_tensors(content)
    except Exception:
        # torch.load fails in many ways on what is no state dict, and then advises to run it.
        raise WeightsError(
            f"{path} is damaged or holds other things than weights; accepted are TorchScript "
            "archives of CLIP, plain state dicts (.pt) and .safetensors."
        ) from None
    return Checkpoint(openai_names(content))


def openai_names(content: Any) -> dict[str, Tensor]:
    """The state dict in a checkpoint's content, with OpenAI's key names.

    Takes off wrappers ("state_dict", "model"), the `module.` of data parallel training, and the
    `text.` of open_clip's custom text towers; drops settings that published files hold as tensors.

    Raises:
        WeightsError: the content is no mapping from names to tensors.
    """
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError("It holds no state dict, that is no mapping from names to tensors.")
    named = {
        str(key).removeprefix("module.").removeprefix("text."): content[key] for key in content
    }
    named = {key: value for key, value in named.items() if is_weight(key)}
    strange = [key for key, value in named.items() if not isinstance(value, Tensor)]
    if strange:
        raise WeightsError(
            f"It is not the state dict of a CLIP: {strange[0][:100]!r} is no tensor."
        )
    projection = named.get("text_projection.weight")
    if projection is not None and projection.dim() == 2:  # open_clip can hold it as a linear layer
        named["text_projection"] = named.pop("text_projection.weight").t()
    if named.get("logit_scale", torch.empty(0)).numel() == 1:
        named["logit_scale"] = named["logit_scale"].reshape(())
    return named


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        config = json.loads(metadata.get("config", "{}"))
        described = CLIPConfig.from_dict(config) if config else None
        mean = _channels(metadata.get("pixel_mean", json.dumps(PIXEL_MEAN)))
        std = _channels(metadata.get("pixel_std", json.dumps(PIXEL_STD)))
        vocabulary = int(described.vocab_size if described else DEFAULT_VOCABULARY)
    except OSError:
        raise
    except Exception as error:  # bytes from anywhere can fail in any way
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{path} is no usable safetensors file ({reason}); get it again."
        ) from None
    hints = {
        key: getattr(described, key)
        for key in ("transformer_heads", "vision_heads", "activation")
        if described
    }
    return Checkpoint(openai_names(_unpack(tensors, vocabulary)), hints, mean, std)


def _channels(text: str) -> tuple[float, ...]:
    red, green, blue = json.loads(text)
    return float(red), float(green), float(blue)


def _unpack(tensors: dict[str, Tensor], vocabulary: int) -> dict[str, Tensor]:
    """Spread a token embedding of which only the rows in use are stored; the others are zero.

    Raises:
        WeightsError: the rows and their numbers do not fit each other or the vocabulary.
    """
    if PACKED_ROWS not in tensors or PACKED_INDEX not in tensors:
        return tensors
    rows, index = tensors.pop(PACKED_ROWS), tensors.pop(PACKED_INDEX).long()
    fits = rows.dim() == 2 and index.shape == rows.shape[:1] and index.numel() > 0
    fits = fits and 0 <= int(index.min()) <= int(index.max()) < vocabulary <= LARGEST_VOCABULARY
    if not fits:
        raise WeightsError(
            f"The packed token embedding does not fit a vocabulary of {vocabulary} tokens."
        )
    weight = torch.zeros(vocabulary, rows.shape[1], dtype=rows.dtype)
    weight[index] = rows
    return {**tensors, "token_embedding.weight": weight}
