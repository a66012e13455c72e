"""A tiny CLIP with a vision transformer and random weights, and settings for runs with it."""

from pathlib import Path

import torch

from clip.config import CLIPConfig
from clip.model import CLIP
from clip.simple_tokenizer import tokenizer

LAYERS, SIDE = 2, 32


def write_tiny_vit(folder: Path) -> tuple[str, ...]:
    """Write the weights; return the KEY VALUE pairs that a run with them needs."""
    torch.manual_seed(0)
    config = CLIPConfig(
        16, SIDE, LAYERS, 64, 16, context_length=77, vocab_size=len(tokenizer().encoder),
        transformer_width=64, transformer_layers=1, transformer_heads=1, vision_heads=1,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny_vit.pt"
    torch.save(CLIP(config).state_dict(), path)
    return ("MODEL.BACKBONE.NAME", str(path), "INPUT.SIZE", f"({SIDE}, {SIDE})")
