"""The frozen CLIP of a run: which weights, on which device, in which precision."""

import json
from pathlib import Path
from typing import Any

import torch

from clip.files import DESCRIPTIONS
from clip.weights import LoadedCLIP, load_clip
from dassl.config import CfgNode, declare_config
from dassl.utils import cached, file_state
from safeio.errors import UserError

from .frozen_tower import freeze, speed_up
from .input_check import check_input, with_input
from .precision import PRECISIONS, check_precision

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
        # Folder of downloaded weights; "" is ~/.cache/clip.
        "DOWNLOAD_ROOT": "",
    },
)


def load_frozen_clip(cfg: CfgNode, device: torch.device, precision: str) -> LoadedCLIP:
    """Load MODEL.BACKBONE.NAME, check that INPUT fits it, and freeze every parameter.

    Within `dassl.utils.reuse_loaded` the runs of a process share it: none ever changes it.

    Raises:
        UserError: a setting of MODEL.CLIP or the precision cannot be; or see `check_input`.
        clip.errors.WeightsError: the weights cannot be had or are no CLIP.
    """
    check_precision(precision, device)
    name, node = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.CLIP
    if node.TEXT_MEMORY <= 0:
        raise UserError(f"MODEL.CLIP.TEXT_MEMORY is {node.TEXT_MEMORY}, but must be above 0.")
    settings = json.dumps(node, sort_keys=True)
    key = (name, _files_state(name), cfg.MODEL.COMPILE, device, precision, settings)
    loaded = cached("clip", key, lambda: _load_and_freeze(cfg, device, precision))
    check_input(cfg, loaded)
    loaded = with_input(cfg, loaded)
    print(loaded.summary())
    if assumed := [setting for key, setting in _SETTINGS.items() if key in loaded.assumed]:
        print(
            "Warning: the activation or the width of heads is assumed, since neither "
            f"{loaded.source} nor a file beside it tells them; another value gives other features, "
            f"and is set by {', '.join(assumed)}."
        )
    return loaded


def _files_state(name: str) -> tuple[Any, ...]:
    """What changes when a weights file, or what describes it, is written again."""
    path = Path(name).expanduser()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    files += [path.parent / description for description in DESCRIPTIONS]
    return tuple(file_state(file) for file in files)


def _load_and_freeze(cfg: CfgNode, device: torch.device, precision: str) -> LoadedCLIP:
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
