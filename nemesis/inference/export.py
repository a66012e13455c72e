"""Export the classifier of a trained run: one text feature per class, as a safetensors file."""

from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from safeio.errors import UserError
from safeio.files import prepare_output_dir
from trainers.core.features.evaluation import FrozenCLIPTrainer
from trainers.core.lora_trainer import LoRATrainer
from trainers.core.prompt_file import save_tensors

from .merged_clip import MERGED, OPENAI_FILE

CLASSIFIER_FILE = "classifier.safetensors"


def save_classifier(
    trainer: FrozenCLIPTrainer,
    text_features: Float[Tensor, "classes embed"],
    path: Path,
    overwrite: bool = False,
    vision_prompts: Float[Tensor, "depth length channels"] | None = None,
) -> Path:
    """Write a classifier; see `Classifier.export`.

    Raises:
        UserError: the file exists or is a folder, its folder cannot be written to, or the
            preprocessing is not a standard one.
    """
    check_target(path, overwrite)
    scale = trainer.loaded_clip.model.logit_scale.detach().float().exp()
    metadata = _metadata(trainer)
    tensors = {"text_features": text_features, "scale": scale}
    if vision_prompts is not None:
        tensors["vision_prompts"] = vision_prompts
    prepare_output_dir(path.parent)
    save_tensors(path, tensors, metadata)
    return path


def check_target(path: Path, overwrite: bool) -> None:
    """Refuse with a UserError a path that is a folder or, without `overwrite`, an existing file."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; -o takes the name of a file")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already; choose another file with -o, or --overwrite it")


def _metadata(trainer: FrozenCLIPTrainer) -> dict[str, Any]:
    cfg, loaded = trainer.cfg, trainer.loaded_clip
    backbone, sha256 = cfg.MODEL.BACKBONE.NAME, loaded.sha256 or ""
    if isinstance(trainer, LoRATrainer) and trainer.feature_kind() is None:
        backbone, sha256 = f"{MERGED}/{OPENAI_FILE}", ""  # its image encoder is adapted
    return {
        "classnames": list(trainer.dm.dataset.classnames),
        "trainer": cfg.TRAINER.NAME,
        "backbone": backbone,
        "weights_sha256": sha256,
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
