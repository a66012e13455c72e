"""Test one corrupted prompt in a separate process, as published code does.

    python -m benchmarks.reference_process RUN_DIR POSITION FACTOR

The process loads CLIP, decodes and encodes the test set, encodes the prompts of all classes over 77
tokens, and prints the number of correctly classified images.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

import datasets  # noqa: F401  (registers)
import trainers  # noqa: F401  (declares their settings)
from clip.weights import load_clip
from dassl.config import load_config
from dassl.data import DatasetWrapper
from dassl.data.datasets import build_dataset
from dassl.data.transforms import build_transform

from .reference_clip import build_reference_clip
from .reference_methods import ReferenceCoOp


@torch.no_grad()
def count_correct(run_dir: Path, position: int, factor: float) -> int:
    """Count correctly classified test images under a run's prompt with one vector rescaled."""
    cfg = load_config(config_file=str(run_dir / "config.yaml"))
    dataset, node = build_dataset(cfg), cfg.MODEL.CLIP
    loaded = load_clip(
        cfg.MODEL.BACKBONE.NAME,
        transformer_heads=node.TEXT_HEADS or None,
        vision_heads=node.VISION_HEADS or None,
    )
    ctx = load_file(run_dir / "prompt.safetensors")["ctx"]
    ctx[position] *= factor
    model = ReferenceCoOp(build_reference_clip(loaded.model), dataset.classnames, ctx)
    transform = build_transform(cfg, is_train=False)
    images = DatasetWrapper(cfg, dataset.test, transform=transform)
    text, correct = model.text_features(model.ctx), 0
    for batch in DataLoader(images, cfg.DATALOADER.TEST.BATCH_SIZE):
        logits = model.match(model.image_features(batch["img"]), text)
        correct += int((logits.argmax(dim=-1) == batch["label"]).sum())
    return correct


if __name__ == "__main__":
    print(count_correct(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
