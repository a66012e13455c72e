"""OpenAI's random initialisation of a CLIP, for models that are trained or measured from scratch.

CLIP (Radford et al., ICML 2021), section 2.5, and the initialisation of GPT-2 that it follows.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from .resnet import Bottleneck, ModifiedResNet
from .transformer import Transformer

if TYPE_CHECKING:
    from .model import CLIP

INITIAL_TEMPERATURE = 0.07


def initialise(model: "CLIP") -> None:
    """Draw all weights whose scale is not already that of their module's default."""
    nn.init.normal_(model.token_embedding.weight, std=0.02)
    nn.init.normal_(model.positional_embedding, std=0.01)
    nn.init.normal_(model.text_projection, std=model.transformer.width**-0.5)
    nn.init.constant_(model.logit_scale, math.log(1 / INITIAL_TEMPERATURE))
    if isinstance(model.visual, ModifiedResNet):
        _initialise_resnet(model.visual)
    _initialise_transformer(model.transformer)


@torch.no_grad()
def _initialise_resnet(tower: ModifiedResNet) -> None:
    pool = tower.attnpool
    for linear in (pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj):
        nn.init.normal_(linear.weight, std=pool.c_proj.in_features**-0.5)
    for module in tower.modules():
        if isinstance(module, Bottleneck):
            # Every residual branch starts at zero, so that the block starts as the identity.
            nn.init.zeros_(module.bn3.weight)


def _initialise_transformer(transformer: Transformer) -> None:
    width, layers = transformer.width, transformer.layers
    into_residual = width**-0.5 * (2 * layers) ** -0.5
    scales = {
        "attn.in_proj_weight": width**-0.5,
        "attn.out_proj.weight": into_residual,
        "mlp.c_fc.weight": (2 * width) ** -0.5,
        "mlp.c_proj.weight": into_residual,
    }
    for block in transformer.blocks:
        for name, std in scales.items():
            nn.init.normal_(block.get_parameter(name), std=std)
