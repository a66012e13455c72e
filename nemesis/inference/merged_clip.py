"""Write the CLIP of a run with its adapters merged, in OpenAI's and Hugging Face's layouts."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from clip.hugging_face import CONFIG, PREPROCESSORS, config_of, to_hugging_face
from safeio.errors import UserError
from safeio.files import prepare_output_dir, write_atomic, write_json
from trainers.core.frozen_clip import load_configured_clip
from trainers.core.lora import merge
from trainers.core.lora_trainer import LoRATrainer

MERGED = "merged_clip"  # folder next to the exported classifier
OPENAI_FILE, HUGGING_FACE_FILE = "openai.safetensors", "model.safetensors"


def save_merged_clip(trainer: LoRATrainer, folder: Path, overwrite: bool = False) -> list[Path]:
    """Write a run's merged CLIP in fp32, with the logit scale of its training.

    transformers has no CLIP with a ResNet, so that one is only written in OpenAI's layout.

    Returns:
        The files of weights.

    Raises:
        UserError: the folder has such files, or cannot be written to.
    """
    if (folder / OPENAI_FILE).exists() and not overwrite:
        raise UserError(f"{folder} has a merged CLIP already; --overwrite it, or move it away")
    # Read again, because the trainer's ResNet has folded batch norms, and its precision may differ.
    loaded = load_configured_clip(trainer.cfg, torch.device("cpu"))
    model, config = merge(loaded.model, trainer.adapters.deltas()), loaded.model.config
    scale = trainer.loaded_clip.model.logit_scale.detach().float().cpu()
    tensors = {key: value.detach() for key, value in model.state_dict().items()}
    tensors["logit_scale"] = scale
    images = {"mean": list(trainer.cfg.INPUT.PIXEL_MEAN), "std": list(trainer.cfg.INPUT.PIXEL_STD)}
    described = {"config": asdict(config), **{f"pixel_{key}": one for key, one in images.items()}}
    prepare_output_dir(folder)
    metadata = {key: json.dumps(value) for key, value in described.items()}
    written = [_write(tensors, folder / OPENAI_FILE, metadata)]
    if not config.is_resnet:
        converted = to_hugging_face(tensors)
        written.append(_write(converted, folder / HUGGING_FACE_FILE, {"format": "pt"}))
        write_json(config_of(config), folder / CONFIG)
        side = config.image_resolution
        processor = {
            "image_processor_type": "CLIPImageProcessor",
            **{"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}},
            **{"image_mean": images["mean"], "image_std": images["std"]},
        }
        write_json(processor, folder / PREPROCESSORS[0])
    return written


def _write(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> Path:
    content = save({key: value.contiguous() for key, value in tensors.items()}, metadata)
    write_atomic(path, lambda temporary: temporary.write_bytes(content))
    return path
