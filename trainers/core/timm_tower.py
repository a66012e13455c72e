"""Vision transformers of the package timm with visual prompts (Jia et al., ECCV 2022).

The prompts stand between the class token and the patches. Their first layer norm is that of the
first block, behind the residual connection, so that their norms matter (CLIP's `ln_pre` removes
them). Prompts of later layers replace what the layer before made of them.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dassl.config import CfgNode
from dassl.utils.names import choices
from safeio.errors import UserError
from safeio.untrusted import one_line

from .frozen_encoder import freeze

PREFIX = "timm:"


class TimmTower(nn.Module):
    """Frozen vision transformer of timm: images (B, 3, H, W), prompts (d, n, D) -> (B, E)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        freeze(self)

    @property
    def layers(self) -> int:
        """The number of blocks."""
        return len(self.model.blocks)

    @property
    def width(self) -> int:
        """D, the width of the tokens."""
        return int(self.model.embed_dim)

    @property
    def embed_dim(self) -> int:
        """E, the width of the features."""
        return int(self.model.num_features)

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch."""
        height, width = self.model.patch_embed.patch_size
        return int(height), int(width)

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        prompts: Float[Tensor, "depth length channels"],
    ) -> Float[Tensor, "batch embed"]:
        """Return the features before the model's own head; its pooling leaves the prompts out."""
        model, (depth, length, _) = self.model, prompts.shape
        with torch.no_grad():
            x = model.patch_drop(model._pos_embed(model.patch_embed(images)))
        start, count = model.num_prefix_tokens, 0
        for number, block in enumerate(model.blocks):
            if number < depth:
                x = insert(x, prompts[number], start, count)
                count = length
            x = block(model.norm_pre(x) if number == 0 else x)
        x = model.norm(x)
        x = torch.cat([x[:, :start], x[:, start + count :]], dim=1)
        features: Tensor = model.forward_head(x, pre_logits=True)
        return features


def insert(
    x: Float[Tensor, "batch tokens width"],
    prompts: Float[Tensor, "length width"],
    start: int,
    replaced: int,
) -> Float[Tensor, "batch more width"]:
    """Put the same prompts into every sequence at `start`, instead of the `replaced` tokens."""
    own = prompts.to(x.dtype).expand(len(x), -1, -1)
    return torch.cat([x[:, :start], own, x[:, start + replaced :]], dim=1)


def load_timm(cfg: CfgNode) -> TimmTower:
    """Load MODEL.BACKBONE.NAME `timm:NAME`, or `timm:NAME@FILE` with the weights in a file.

    NAME is spelled as in timm, such as vit_base_patch16_224.augreg_in21k. Without a FILE, timm
    loads the weights of this name from its cache or the network, or none at all with
    MODEL.BACKBONE.PRETRAINED False.

    Raises:
        UserError: timm is missing, the name is unknown, the model is not a plain vision
            transformer, INPUT does not fit it, or the weights cannot be loaded.
    """
    name = cfg.MODEL.BACKBONE.NAME
    own, _, file = name.removeprefix(PREFIX).partition("@")
    _check_model(cfg, own)
    import timm

    source = {"checkpoint_path": file} if file else {"pretrained": cfg.MODEL.BACKBONE.PRETRAINED}
    try:
        return TimmTower(timm.create_model(own, **source))
    except Exception as error:  # of the network, or of a file with other content
        raise UserError(
            f'The weights of "{name}" cannot be loaded ({one_line(error)}); name a file of them, '
            f"{PREFIX}{own}@FILE, or set MODEL.BACKBONE.PRETRAINED False for random ones"
        ) from error


def _check_model(cfg: CfgNode, name: str) -> None:
    """Check a model's name, class and input without allocating it."""
    try:
        import timm
        from timm.models.vision_transformer import VisionTransformer
    except ModuleNotFoundError as error:
        raise UserError(
            f'MODEL.BACKBONE.NAME "{PREFIX}{name}" needs timm, which is not installed; '
            "pip install '.[timm]'"
        ) from error
    if not timm.is_model(name):
        raise UserError(f'timm has no model "{name}"{choices(name, timm.list_models("vit*"))}')
    with torch.device("meta"):
        model: Any = timm.create_model(name)
    if type(model) is not VisionTransformer:
        raise UserError(
            f'"{name}" of timm is a {type(model).__name__}, not a plain vision transformer, which '
            f"prompts need; choose one such as {PREFIX}vit_base_patch16_224"
        )
    described: Any = model.pretrained_cfg
    own = {
        "SIZE": model.patch_embed.img_size,
        "PIXEL_MEAN": described["mean"],
        "PIXEL_STD": described["std"],
    }
    for key, value in own.items():
        if max(abs(a - b) for a, b in zip(cfg.INPUT[key], value, strict=True)) > 1e-3:
            raise UserError(
                f"INPUT.{key} is {tuple(cfg.INPUT[key])}, but timm's {name} takes {tuple(value)}; "
                f"set INPUT.{key}"
            )
