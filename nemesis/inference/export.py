"""Export the classifier of a trained run: one text feature per class, as a safetensors file."""

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
    """Export the run of `nemesis export`'s arguments.

    Raises:
        UserError: the file exists or is a folder; see `load_classifier`, `save_classifier`.
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
    """Write text features (C, E), logit scale, class names and image preprocessing.

    docs/export.md describes the file.

    Args:
        trainer: of a finished run.
        path: of the safetensors file, which is written atomically.

    Raises:
        UserError: the method has no `class_weights`, the preprocessing is not a standard one, or
            the folder is not writable.
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
    """Return the image preprocessing: size, interpolation, mean and standard deviation."""
    names = cfg.INPUT.TRANSFORMS
    if cfg.INPUT.NO_TRANSFORM or "instance_norm" in names:
        raise UserError(
            "Size, mean and standard deviation do not describe the preprocessing of "
            "INPUT.NO_TRANSFORM and instance_norm; export a run without them"
        )
    normalised = "normalize" in names
    return {
        "input_size": max(cfg.INPUT.SIZE),
        "interpolation": cfg.INPUT.INTERPOLATION,
        "mean": list(cfg.INPUT.PIXEL_MEAN) if normalised else [0.0] * 3,
        "std": list(cfg.INPUT.PIXEL_STD) if normalised else [1.0] * 3,
    }
