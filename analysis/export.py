"""A tuned prompt as what it amounts to: one weight vector for each class, usable anywhere."""

import argparse
from pathlib import Path
from typing import Any

from torch.nn import functional

from safeio.errors import UserError
from safeio.files import prepare_output_dir
from trainers.core.features.evaluation import FrozenCLIPTrainer
from trainers.core.prompt_file import save_tensors

from .run_flags import load_classifier

CLASSIFIER_FILE = "classifier.safetensors"


def export_command(arguments: argparse.Namespace) -> None:
    """Write what `export.py`'s arguments name.

    Raises:
        UserError: the file exists already or is a folder; see `load_classifier`, `save_classifier`.
        UserError: the backbone's weights cannot be had.
    """
    path = arguments.output or arguments.run_dir / CLASSIFIER_FILE
    if path.is_dir():
        raise UserError(f"{path} is a folder; -o takes the name of a file")
    if path.exists() and not arguments.overwrite:
        raise UserError(f"{path} exists already; choose another file with -o, or --overwrite it")
    trainer = load_classifier(arguments)
    save_classifier(trainer, path)
    print(f"The classifier of {len(trainer.dm.dataset.classnames)} classes is in {path}")


def save_classifier(trainer: FrozenCLIPTrainer, path: Path) -> None:
    """Write text features (C, E), their scale, and all that makes image features fit them.

    docs/export.md describes the file.

    Args:
        trainer: of a finished run.
        path: a safetensors file; it appears only when it is complete.

    Raises:
        UserError: the method has no such matrix, the images' transform is a special one, or the
            folder cannot be written to.
    """
    with trainer.cached_text_features():
        weights = functional.normalize(trainer.class_weights().float(), dim=-1)
        scale = trainer.loaded_clip.model.logit_scale.float().exp()
    metadata = _metadata(trainer)
    prepare_output_dir(path.parent)
    save_tensors(path, {"text_features": weights, "scale": scale}, metadata)


def _metadata(trainer: FrozenCLIPTrainer) -> dict[str, Any]:
    cfg, loaded = trainer.cfg, trainer.loaded_clip
    return {
        "classnames": list(trainer.dm.dataset.classnames),
        "trainer": cfg.TRAINER.NAME,
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "weights_sha256": loaded.sha256 or "",
        "activation": loaded.model.config.activation,
        **_preprocessing(cfg),
    }


def _preprocessing(cfg: Any) -> dict[str, Any]:
    """How an image becomes the tower's input, in the words of every CLIP."""
    names = cfg.INPUT.TRANSFORMS
    if cfg.INPUT.NO_TRANSFORM or "instance_norm" in names:
        raise UserError(
            "INPUT.NO_TRANSFORM and instance_norm treat images in a way that size, mean and "
            "standard deviation do not describe; export a run without them"
        )
    normalised = "normalize" in names
    return {
        "input_size": max(cfg.INPUT.SIZE),
        "interpolation": cfg.INPUT.INTERPOLATION,
        "mean": list(cfg.INPUT.PIXEL_MEAN) if normalised else [0.0] * 3,
        "std": list(cfg.INPUT.PIXEL_STD) if normalised else [1.0] * 3,
    }
