"""The frozen CLIP of a run: which weights, on which device, in which precision."""

import dataclasses
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from clip.files import DESCRIPTIONS
from clip.loaded import ASSUMED, SET
from clip.resnet import ModifiedResNet
from clip.simple_tokenizer import tokenizer
from clip.vision_transformer import VisionTransformer
from clip.weights import LoadedCLIP, load_clip
from dassl.config import declare_config
from dassl.utils import file_state, kept
from safeio.errors import UserError

PRECISIONS = {
    "fp32": torch.float32,
    "amp": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}

# More activations would not fit a CPU's caches, and take memory: 16 images of 224 x 224 at once are
# a little faster than 32, and 8 are slower.
PIXELS_AT_ONCE = 16 * 224 * 224

_SETTINGS = {
    "activation": "MODEL.CLIP.ACTIVATION",
    "text_heads": "MODEL.CLIP.TEXT_HEADS",
    "vision_heads": "MODEL.CLIP.VISION_HEADS",
}

declare_config("MODEL", {"COMPILE": False})  # torch.compile for the frozen image tower
declare_config(
    "MODEL.CLIP",
    {
        # What a state dict cannot always tell; 0 and "" leave it to the weights.
        "TEXT_HEADS": 0,
        "VISION_HEADS": 0,
        "CONTEXT_LENGTH": 0,
        "ACTIVATION": "",
        # GiB that text states kept for the gradient may take; what would take more is computed a
        # second time in the backward pass instead (CoCoOp or PLOT with many classes).
        "TEXT_MEMORY": 4.0,
        # Where weights that are named are kept; "" is ~/.cache/clip.
        "DOWNLOAD_ROOT": "",
    },
)


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that does not exist or that the device cannot compute in.

    Raises:
        UserError: unknown precision, or fp16 on a CPU.
    """
    if precision not in PRECISIONS:
        raise UserError(f"PREC is {precision!r}, but must be one of {', '.join(PRECISIONS)}.")
    if precision == "fp16" and device.type == "cpu":
        raise UserError("PREC fp16 needs a GPU; on a CPU choose fp32, bf16 or amp.")


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Autocast for `amp` (fp16 on CUDA, bf16 elsewhere), nothing for the other precisions."""
    if precision != "amp":
        return nullcontext()
    dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype)


def frozen_features_of(
    encode: Callable[[Tensor], Tensor], images: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch *tokens embed"]:
    """L2-normalised features of a frozen tower, computed without gradient.

    Args:
        encode: CLIP's `encode_image` or `encode_image_local`.
        images: a batch.
    """
    at_once = len(images)
    if images.device.type == "cpu":
        at_once = max(1, PIXELS_AT_ONCE // (images.shape[-2] * images.shape[-1]))
    with torch.inference_mode():
        features = torch.cat([encode(part) for part in images.split(at_once)])
        features = functional.normalize(features, dim=-1)
    return features.clone()  # inference tensors cannot take part in a training step


def load_frozen_clip(cfg: Any, device: torch.device, precision: str) -> LoadedCLIP:
    """Load MODEL.BACKBONE.NAME, check that INPUT fits it, and freeze every parameter.

    Within `dassl.utils.keep_loaded` the runs of a process share it: none ever changes it.

    Raises:
        UserError: the configured image size is not the tower's, the normalisation differs from
            what the weights' files tell, the vocabulary is not the tokenizer's, or a setting of
            MODEL.CLIP cannot be.
        clip.errors.WeightsError: the weights cannot be had or are no CLIP.
    """
    check_precision(precision, device)
    node = cfg.MODEL.CLIP
    if node.TEXT_MEMORY <= 0:
        raise UserError(f"MODEL.CLIP.TEXT_MEMORY is {node.TEXT_MEMORY}, but must be above 0.")
    key = (
        *(cfg.MODEL.BACKBONE.NAME, _files_state(cfg.MODEL.BACKBONE.NAME), cfg.MODEL.COMPILE),
        *(device, precision, json.dumps(node, sort_keys=True)),
    )
    loaded = kept("clip", key, lambda: _load_and_freeze(cfg, device, precision))
    _check_input(cfg, loaded)
    loaded = _with_input(cfg, loaded)
    print(loaded.summary())
    if settings := [setting for key, setting in _SETTINGS.items() if key in loaded.assumed]:
        print(
            "Warning: the activation or the width of heads is assumed, since neither "
            f"{loaded.source} nor a file beside it tells them; another value gives other features, "
            f"and is set by {', '.join(settings)}."
        )
    return loaded


def _files_state(name: str) -> tuple[Any, ...]:
    """What changes when a weights file, or what describes it, is written again."""
    path = Path(name).expanduser()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    files += [path.parent / description for description in DESCRIPTIONS]
    return tuple(file_state(file) for file in files)


def _load_and_freeze(cfg: Any, device: torch.device, precision: str) -> LoadedCLIP:
    node = cfg.MODEL.CLIP
    loaded = load_clip(
        cfg.MODEL.BACKBONE.NAME,
        device=device,
        dtype=PRECISIONS[precision],
        transformer_heads=node.TEXT_HEADS or None,
        vision_heads=node.VISION_HEADS or None,
        context_length=node.CONTEXT_LENGTH or None,
        activation=node.ACTIVATION or None,
        download_root=node.DOWNLOAD_ROOT or None,
    )
    freeze(loaded.model)
    speed_up(loaded.model.visual, compile_it=cfg.MODEL.COMPILE)
    return loaded


def speed_up(tower: ModifiedResNet | VisionTransformer, compile_it: bool = False) -> None:
    """Prepare a frozen image tower for inference, in place; its features stay the same.

    Args:
        tower: in evaluation mode.
        compile_it: let torch.compile make its kernels, which needs a C++ compiler on a CPU.
    """
    if isinstance(tower, ModifiedResNet):
        tower.fold_batch_norms()
        tower.requires_grad_(False)
    # The layout that convolutions are fastest in, on CPU and GPU alike.
    tower.to(memory_format=torch.channels_last)
    if compile_it:
        for name in ("forward", "forward_local"):
            setattr(tower, name, torch.compile(getattr(tower, name)))


def freeze(model: nn.Module) -> None:
    """Fix every parameter and the statistics of normalisation layers."""
    model.requires_grad_(False)
    model.eval()


def _check_input(cfg: Any, loaded: LoadedCLIP) -> None:
    name, resolution = cfg.MODEL.BACKBONE.NAME, loaded.model.visual.input_resolution
    if tuple(cfg.INPUT.SIZE) != (resolution, resolution):
        height, width = cfg.INPUT.SIZE
        raise UserError(
            f"INPUT.SIZE is {height} x {width}, but the image tower of {name!r} takes "
            f"{resolution} x {resolution}; choose a config file of this backbone."
        )
    vocabulary, tokens = loaded.model.vocab_size, len(tokenizer().encoder)
    if vocabulary != tokens:
        raise UserError(
            f"The weights of {name!r} are those of {vocabulary:,} tokens, but the tokenizer of "
            f"OpenAI's CLIP has {tokens:,}; choose weights that were trained with it."
        )
    for key, fact, own in _normalisation(loaded):
        given = [float(value) for value in cfg.INPUT[key]]
        differs = max(abs(a - b) for a, b in zip(given, own, strict=True)) > 1e-3
        if differs and loaded.origins[fact] != ASSUMED:
            source = loaded.described_by or f"the images that {name!r} was trained with"
            raise UserError(
                f"INPUT.{key} is {given}, but it is {[round(value, 4) for value in own]} according "
                f"to {source}; choose a config file of this backbone, or set INPUT.{key}."
            )


def _normalisation(loaded: LoadedCLIP) -> list[tuple[str, str, tuple[float, ...]]]:
    """Keys of INPUT, the facts that they stand for, and the weights' values."""
    return [
        ("PIXEL_MEAN", "pixel_mean", loaded.pixel_mean),
        ("PIXEL_STD", "pixel_std", loaded.pixel_std),
    ]


def _with_input(cfg: Any, loaded: LoadedCLIP) -> LoadedCLIP:
    """With INPUT's normalisation where the weights do not tell theirs."""
    chosen: dict[str, Any] = {
        fact: tuple(float(value) for value in cfg.INPUT[key])
        for key, fact, _ in _normalisation(loaded)
        if loaded.origins[fact] == ASSUMED
    }
    origins = {**loaded.origins, **dict.fromkeys(chosen, SET)}
    return dataclasses.replace(loaded, origins=origins, **chosen)
