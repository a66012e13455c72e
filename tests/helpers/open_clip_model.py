"""open_clip's own model of the same weights."""

from typing import Any

import open_clip

from clip.model import CLIP


def open_clip_of(ours: CLIP) -> Any:
    """open_clip's CLIP of the same sizes, with our weights under the names they share."""
    config = ours.config
    layers = config.vision_layers
    model = open_clip.CLIP(
        embed_dim=config.embed_dim,
        vision_cfg={
            "layers": layers if isinstance(layers, int) else list(layers),
            "width": config.vision_width,
            "patch_size": config.vision_patch_size,
            "image_size": config.image_resolution,
        },
        text_cfg={
            "context_length": config.context_length,
            "vocab_size": config.vocab_size,
            "width": config.transformer_width,
            "heads": config.text_heads,
            "layers": config.transformer_layers,
        },
        quick_gelu=config.activation == "quick_gelu",
    )
    model.load_state_dict(ours.state_dict())
    return model.eval()
