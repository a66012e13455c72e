"""The frozen image encoder of a run that takes visual prompts: CLIP's, or one of timm."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from clip.prompted_vision import PromptedImageEncoder
from dassl.config import CfgNode

from .frozen_clip import load_frozen_clip
from .timm_tower import PREFIX, load_timm


@dataclass(frozen=True)
class PromptedTower:
    """A frozen vision transformer with prompts.

    Attributes:
        encode: maps images (B, 3, H, W) and prompts (d, n, D) to features (B, E).
        layers: the largest d.
        width: D.
        embed_dim: E.
        patch_size: height and width of a patch in pixels.
        entries: on the weights, for results.json.
    """

    encode: Callable[[Tensor, Tensor], Tensor]
    layers: int
    width: int
    embed_dim: int
    patch_size: tuple[int, int]
    entries: dict[str, Any] = field(default_factory=dict)


def load_tower(cfg: CfgNode, device: torch.device) -> PromptedTower:
    """Load the image encoder of MODEL.BACKBONE.NAME in fp32: `timm:NAME`, or any CLIP.

    Raises:
        UserError: see `load_timm` and `load_frozen_clip`; or CLIP's image encoder is a ResNet.
    """
    if cfg.MODEL.BACKBONE.NAME.startswith(PREFIX):
        own = load_timm(cfg).to(device)
        return PromptedTower(own, own.layers, own.width, own.embed_dim, own.patch_size)
    loaded = load_frozen_clip(cfg, device, "fp32")
    encoder = PromptedImageEncoder(loaded.model)
    visual = encoder.visual
    height, width = visual.conv1.kernel_size
    return PromptedTower(
        encoder,
        visual.transformer.layers,
        visual.conv1.out_channels,
        visual.output_dim,
        (height, width),
        {"weights_sha256": loaded.sha256, "clip": loaded.facts, "tf32": cfg.MODEL.TF32},
    )
