"""Load the frozen CLIP of a run and check that the configuration fits its weights."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from clip.build import convert_weights
from clip.files import DESCRIPTIONS
from clip.loaded import ASSUMED, SET
from clip.simple_tokenizer import tokenizer
from clip.weights import LoadedCLIP, load_clip
from dassl.config import CfgNode, declare_config
from dassl.utils import cached, file_state
from safeio.errors import UserError

from .frozen_encoder import PRECISIONS, check_precision, freeze, speed_up

_SETTINGS = {
    "activation": "MODEL.CLIP.ACTIVATION",
    "text_heads": "MODEL.CLIP.TEXT_HEADS",
    "vision_heads": "MODEL.CLIP.VISION_HEADS",
}

TEXT_MEMORY = 4.0  # the default takes more on CUDA if more is free

declare_config(
    "MODEL",
    {
        "COMPILE": False,  # torch.compile for the frozen image encoder
        "TF32": False,  # on CUDA: multiply fp32 matrices and convolve in TensorFloat-32
    },
)
declare_config(
    "MODEL.CLIP",
    {
        # Values that a state dict may not contain; 0 and "" take them from the weights' files.
        "TEXT_HEADS": 0,
        "VISION_HEADS": 0,
        "CONTEXT_LENGTH": 0,
        "ACTIVATION": "",
        # GiB for the text encoder's activations that the backward pass needs; above it they are
        # recomputed in the backward pass (CoCoOp or PLOT with many classes).
        "TEXT_MEMORY": TEXT_MEMORY,
        # Folder of downloaded weights; "" is ~/.cache/clip.
        "DOWNLOAD_ROOT": "",
    },
)


def load_frozen_clip(cfg: CfgNode, device: torch.device, precision: str) -> LoadedCLIP:
    """Load MODEL.BACKBONE.NAME, check that INPUT fits it, and freeze every parameter.

    Within `dassl.utils.reuse_loaded`, all runs of a process share one copy, which no run changes.

    Raises:
        UserError: a setting of MODEL.CLIP or the precision is invalid; see also `_check_input`.
        clip.errors.WeightsError: the weights are not available or are not a CLIP.
    """
    check_precision(precision, device)
    name, node = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.CLIP
    if node.TEXT_MEMORY <= 0:
        raise UserError(f"MODEL.CLIP.TEXT_MEMORY is {node.TEXT_MEMORY}, but must be above 0.")
    settings = json.dumps(node, sort_keys=True)
    key = (name, _files_state(name), cfg.MODEL.COMPILE, device, precision, settings)
    loaded = cached("clip", key, lambda: _load_and_freeze(cfg, device, precision))
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if cfg.MODEL.TF32 else "highest")
        torch.backends.cudnn.allow_tf32 = cfg.MODEL.TF32  # PyTorch's default is True
    _check_input(cfg, loaded)
    loaded = _with_input(cfg, loaded)
    print(loaded.summary())
    if assumed := [setting for key, setting in _SETTINGS.items() if key in loaded.assumed]:
        print(
            "Warning: the activation or the width of the heads is assumed, since neither "
            f"{loaded.source} nor a file next to it states it; wrong values give wrong features; "
            f"set {', '.join(assumed)}."
        )
    return loaded


def text_memory(cfg: CfgNode, device: torch.device) -> int:
    """Return the bytes for the text encoder's activations; on CUDA half of the free memory."""
    limit = int(cfg.MODEL.CLIP.TEXT_MEMORY * 2**30)
    if device.type == "cuda" and cfg.MODEL.CLIP.TEXT_MEMORY == TEXT_MEMORY:
        limit = max(limit, torch.cuda.mem_get_info(device)[0] // 2)
    return limit


def _files_state(name: str) -> tuple[Any, ...]:
    """Return the file states of a weights file and of the files that describe it."""
    path = Path(name).expanduser()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    files += [path.parent / description for description in DESCRIPTIONS]
    return tuple(file_state(file) for file in files)


def load_configured_clip(cfg: CfgNode, device: torch.device) -> LoadedCLIP:
    """Load the CLIP of a configuration as its files have it: in fp32, with batch norms.

    Raises:
        clip.errors.WeightsError: the weights are not available or are not a CLIP.
    """
    node = cfg.MODEL.CLIP
    return load_clip(
        cfg.MODEL.BACKBONE.NAME,
        device=device,
        transformer_heads=node.TEXT_HEADS or None,
        vision_heads=node.VISION_HEADS or None,
        context_length=node.CONTEXT_LENGTH or None,
        activation=node.ACTIVATION or None,
        download_root=node.DOWNLOAD_ROOT or None,
    )


def _load_and_freeze(cfg: CfgNode, device: torch.device, precision: str) -> LoadedCLIP:
    loaded = load_configured_clip(cfg, device)
    freeze(loaded.model)
    # In fp32 until BatchNorm is folded, so that the weights are rounded only once.
    speed_up(loaded.model.visual, compile_it=cfg.MODEL.COMPILE)
    if PRECISIONS[precision] is not torch.float32:
        convert_weights(loaded.model, PRECISIONS[precision])
    return loaded


def _check_input(cfg: CfgNode, loaded: LoadedCLIP) -> None:
    """Raise an error if the image size, the normalisation or the vocabulary does not fit.

    Raises:
        UserError: the image size or the vocabulary differs, or the normalisation differs from the
            one that the weights' files state.
    """
    name, resolution = cfg.MODEL.BACKBONE.NAME, loaded.model.visual.input_resolution
    if tuple(cfg.INPUT.SIZE) != (resolution, resolution):
        height, width = cfg.INPUT.SIZE
        raise UserError(
            f"INPUT.SIZE is {height} x {width}, but the image encoder of {name!r} takes "
            f"{resolution} x {resolution}; choose a config file of this backbone."
        )
    vocabulary, tokens = loaded.model.vocab_size, len(tokenizer().encoder)
    if vocabulary != tokens:
        raise UserError(
            f"The weights of {name!r} have {vocabulary:,} tokens, but the tokenizer of OpenAI's "
            f"CLIP has {tokens:,}; choose weights that were trained with this tokenizer."
        )
    for key, fact, value in _normalisation(loaded):
        configured = [float(number) for number in cfg.INPUT[key]]
        differs = max(abs(a - b) for a, b in zip(configured, value, strict=True)) > 1e-3
        if differs and loaded.origins[fact] != ASSUMED:
            source = loaded.described_by or f"the images that {name!r} was trained with"
            rounded = [round(number, 4) for number in value]
            raise UserError(
                f"INPUT.{key} is {configured}, but it is {rounded} according to {source}; choose a "
                f"config file of this backbone, or set INPUT.{key}."
            )


def _with_input(cfg: CfgNode, loaded: LoadedCLIP) -> LoadedCLIP:
    """Take the normalisation from INPUT if the weights' files do not state it."""
    chosen: dict[str, Any] = {
        fact: tuple(float(number) for number in cfg.INPUT[key])
        for key, fact, _ in _normalisation(loaded)
        if loaded.origins[fact] == ASSUMED
    }
    origins = {**loaded.origins, **dict.fromkeys(chosen, SET)}
    return dataclasses.replace(loaded, origins=origins, **chosen)


def _normalisation(loaded: LoadedCLIP) -> list[tuple[str, str, tuple[float, ...]]]:
    """Return (key of INPUT, field of `LoadedCLIP`, value of the weights)."""
    return [
        ("PIXEL_MEAN", "pixel_mean", loaded.pixel_mean),
        ("PIXEL_STD", "pixel_std", loaded.pixel_std),
    ]
