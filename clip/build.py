"""Build CLIPs from state dicts or with random weights.

`build_model` and `convert_weights` are OpenAI's functions of these names.
"""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .config import (
    ARCHITECTURES,
    canonical_name,
    check_finite,
    config_from_state_dict,
    is_weight,
)
from .errors import WeightsError
from .model import CLIP
from .transformer import Attention


def convert_weights(model: nn.Module, dtype: torch.dtype = torch.float16) -> None:
    """Cast the weights that multiply activations to a lower precision, in place, as OpenAI does.

    Norms, embeddings and the logit scale stay in fp32; they compute in it or are cast at use.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | Attention):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
        for name in ("text_projection", "proj"):
            value = getattr(module, name, None)
            if isinstance(value, nn.Parameter):
                value.data = value.data.to(dtype)


def build_model(
    state_dict: Mapping[str, Any],
    *,
    transformer_heads: int | None = None,
    vision_heads: int | None = None,
    context_length: int | None = None,
    activation: str | None = None,
    dtype: torch.dtype | None = None,
) -> CLIP:
    """Build the CLIP that a state dict with OpenAI's key names describes, in evaluation mode.

    Args:
        state_dict: a whole CLIP; its tensors are copied.
        transformer_heads: heads of the text encoder; None for heads of width 64.
        vision_heads: heads of the image encoder; None for heads of width 64.
        context_length: use only this many of the text encoder's positions.
        activation: `quick_gelu` (also for None) or `gelu`.
        dtype: fp32, or fp16 or bf16 as `convert_weights` casts. None: that of the first
            convolution, which is fp16 in OpenAI's files, as with OpenAI's function.

    Raises:
        WeightsError: the state dict is not that of a CLIP, or an argument does not fit it.
    """
    tensors = {key: value for key, value in state_dict.items() if is_weight(key)}
    config = config_from_state_dict(
        tensors,
        transformer_heads=transformer_heads,
        vision_heads=vision_heads,
        context_length=context_length,
        activation=activation,
    )
    positions = tensors["positional_embedding"][: config.context_length]
    tensors["positional_embedding"] = positions
    with torch.device("meta"):  # skip the random initialisation
        model = CLIP(config)
    _check_tensors(model, tensors)
    for key, value in tensors.items():
        check_finite(key, value)
    model.load_state_dict({key: _copy(value) for key, value in tensors.items()}, assign=True)
    dtype = dtype or tensors["visual.conv1.weight"].dtype
    if dtype in (torch.float16, torch.bfloat16):
        convert_weights(model, dtype)
    return model.requires_grad_(True).eval()


def _copy(value: Tensor) -> Tensor:
    dtype = torch.float32 if value.is_floating_point() else value.dtype
    return value.detach().to(dtype, copy=True).contiguous()


def _check_tensors(model: CLIP, tensors: Mapping[str, Tensor]) -> None:
    expected = model.state_dict()
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    missing = [key for key in expected if key not in tensors and key not in counters]
    unknown = [key for key in tensors if key not in expected]
    for keys, fault in ((missing, "missing"), (unknown, "unknown")):
        if keys:
            more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
            raise WeightsError(
                f"This state dict is not that of a CLIP: {keys[0]!r} is {fault}{more}."
            )
    for key, value in tensors.items():
        if value.shape != expected[key].shape:
            raise WeightsError(
                f"This state dict is not that of a CLIP: {key!r} has shape {tuple(value.shape)}, "
                f"but the other entries require {tuple(expected[key].shape)}."
            )
        if value.is_floating_point() != expected[key].is_floating_point():
            raise WeightsError(
                f"This state dict is not that of a CLIP: {key!r} holds {value.dtype}, but "
                f"must hold {expected[key].dtype}."
            )


def build_random(name: str, seed: int = 0, **overrides: Any) -> CLIP:
    """Build one of OpenAI's architectures with random weights, in evaluation mode.

    Args:
        name: such as `RN50` or `ViT-B/16`.
        seed: the same seed gives the same weights; the global generator is restored.
        **overrides: values for fields of `CLIPConfig`.

    Raises:
        WeightsError: no architecture has this name, or an override does not fit it.
    """
    canonical = canonical_name(name)
    if canonical is None:
        near = difflib.get_close_matches(name, ARCHITECTURES, n=1, cutoff=0.0)
        raise WeightsError(
            f"{name!r} is not an architecture; did you mean {near[0]!r}? "
            f"Choose one of {', '.join(ARCHITECTURES)}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIP(replace(ARCHITECTURES[canonical], **overrides)).eval()
