"""Convert CLIPs that Hugging Face's transformers saved: tensor names and configuration files.

transformers splits the projection of queries, keys and values, and stores the projections of the
features as linear layers; all other tensors have the same shape under another name.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .config import ACTIVATIONS, CLIPConfig, count_blocks
from .description import Description, Settings, read_json
from .errors import WeightsError

CONFIG = "config.json"
PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
EPS = 1e-5  # of all norms

_ENCODERS = {
    "text_model.": {
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm.weight": "ln_final.weight",
        "final_layer_norm.bias": "ln_final.bias",
    },
    "vision_model.": {
        "embeddings.class_embedding": "visual.class_embedding",
        "embeddings.patch_embedding.weight": "visual.conv1.weight",
        "embeddings.position_embedding.weight": "visual.positional_embedding",
        "pre_layrnorm.weight": "visual.ln_pre.weight",  # spelled like this in transformers
        "pre_layrnorm.bias": "visual.ln_pre.bias",
        "post_layernorm.weight": "visual.ln_post.weight",
        "post_layernorm.bias": "visual.ln_post.bias",
    },
}
_BLOCKS = {
    "text_model.": "transformer.resblocks.",
    "vision_model.": "visual.transformer.resblocks.",
}
_LAYERS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_PROJECTIONS = {
    "text_projection.weight": "text_projection",
    "visual_projection.weight": "visual.proj",
}
_ENCODER_DEFAULTS = {
    "hidden_act": "quick_gelu",
    "layer_norm_eps": EPS,
    "num_hidden_layers": 12,
}
TEXT_DEFAULTS = {
    **_ENCODER_DEFAULTS,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
}
VISION_DEFAULTS = {
    **_ENCODER_DEFAULTS,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
}
_PARTS = {"clip_vision_model": "image", "clip_text_model": "text"}


def is_hugging_face(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether the names are those of transformers."""
    return any(key.startswith(tuple(_ENCODERS)) for key in tensors)


def from_hugging_face(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the same weights under OpenAI's names.

    Raises:
        WeightsError: an entry is missing or unknown, or an encoder is missing.
    """
    remaining = {key: value for key, value in tensors.items() if not key.endswith(".position_ids")}
    for other, prefix in (("image", "text_model."), ("text", "vision_model.")):
        if not any(key.startswith(prefix) for key in remaining):
            raise WeightsError(
                f"It contains only the {other} encoder of a CLIP, and prompts need both; save the "
                "whole CLIPModel."
            )
    converted: dict[str, Tensor] = {}
    for prefix, names in _ENCODERS.items():
        for source, target in names.items():
            converted[target] = _pop(remaining, f"{prefix}{source}")
        for number in range(count_blocks(remaining, rf"{prefix}encoder\.layers")):
            block = f"{prefix}encoder.layers.{number}."
            converted.update(_pop_block(remaining, block, f"{_BLOCKS[prefix]}{number}."))
    for source, target in _PROJECTIONS.items():
        converted[target] = _pop(remaining, source).t()
    converted["logit_scale"] = _pop(remaining, "logit_scale")
    if remaining:
        raise WeightsError(f"It is not a plain CLIP: {next(iter(remaining))[:100]!r} is unknown.")
    return converted


def to_hugging_face(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a CLIP with a vision transformer under transformers' names."""
    names = {own: f"{p}{theirs}" for p, found in _ENCODERS.items() for theirs, own in found.items()}
    converted = {theirs: tensors[own] for own, theirs in names.items()}
    converted |= {theirs: tensors[own].t() for theirs, own in _PROJECTIONS.items()}
    converted["logit_scale"] = tensors["logit_scale"]
    for prefix, target in _BLOCKS.items():
        for number in range(count_blocks(tensors, re.escape(target.removesuffix(".")))):
            block, own = f"{prefix}encoder.layers.{number}.", f"{target}{number}."
            for kind in ("weight", "bias"):
                for theirs, name in _LAYERS.items():
                    converted[f"{block}{theirs}.{kind}"] = tensors[f"{own}{name}.{kind}"]
                parts = tensors[f"{own}attn.in_proj_{kind}"].chunk(3)
                for name, part in zip("qkv", parts, strict=True):
                    converted[f"{block}self_attn.{name}_proj.{kind}"] = part
    return converted


def config_of(config: CLIPConfig) -> dict[str, Any]:
    """Return the content of config.json for a CLIP with a vision transformer."""
    common = {"hidden_act": config.activation, "layer_norm_eps": EPS}
    common["projection_dim"] = config.embed_dim
    text, vision = config.transformer_width, config.vision_width
    return {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": config.embed_dim,
        "text_config": {
            **common,
            **{"hidden_size": text, "intermediate_size": 4 * text},
            "num_hidden_layers": config.transformer_layers,
            "num_attention_heads": config.text_heads,
            "max_position_embeddings": config.context_length,
            "vocab_size": config.vocab_size,
            # As in transformers' files of OpenAI's weights: features are read at the highest id.
            "eos_token_id": 2,
        },
        "vision_config": {
            **common,
            **{"hidden_size": vision, "intermediate_size": 4 * vision},
            "num_hidden_layers": config.vision_layers,
            "num_attention_heads": config.image_heads,
            "image_size": config.image_resolution,
            "patch_size": config.vision_patch_size,
        },
    }


def _pop(remaining: dict[str, Tensor], key: str) -> Tensor:
    if key not in remaining:
        raise WeightsError(f"It is not a whole CLIP: {key!r} is missing.")
    return remaining.pop(key)


def _pop_block(remaining: dict[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    converted = {}
    for kind in ("weight", "bias"):
        for old, new in _LAYERS.items():
            converted[f"{target}{new}.{kind}"] = _pop(remaining, f"{source}{old}.{kind}")
        parts = [_pop(remaining, f"{source}self_attn.{name}_proj.{kind}") for name in "qkv"]
        if len({part.shape for part in parts}) > 1 or not parts[0].dim():
            raise WeightsError(f"The queries, keys and values of {source} have different shapes.")
        converted[f"{target}attn.in_proj_{kind}"] = torch.cat(parts)
    return converted


def describe(folder: Path) -> Description | None:
    """Read the description in transformers' files in a folder; return None without config.json.

    Raises:
        WeightsError: the files do not describe a whole CLIP, or one that is not supported.
        OSError: a file cannot be read.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    config = read_json(path)
    _check_kind(config, path)
    text = _encoder_settings(config, "text_config", TEXT_DEFAULTS, path)
    vision = _encoder_settings(config, "vision_config", VISION_DEFAULTS, path)
    activation = text.values["hidden_act"]
    if activation not in ACTIVATIONS:
        raise text.error("hidden_act", f"only {' and '.join(ACTIVATIONS)} are supported")
    if vision.values["hidden_act"] != activation:
        raise vision.error("hidden_act", f"that of the text encoder is {activation!r}")
    embed = Settings(config, str(path), {"projection_dim": 512}).size("projection_dim")
    mean, std = _read_normalisation(folder)
    return Description(
        source=path.name,
        transformer_heads=text.size("num_attention_heads"),
        vision_heads=vision.size("num_attention_heads"),
        activation=activation,
        pixel_mean=mean,
        pixel_std=std,
        sizes={
            "embed_dim": embed,
            "image_resolution": vision.size("image_size"),
            "vision_layers": vision.size("num_hidden_layers"),
            "vision_width": vision.size("hidden_size"),
            "vision_patch_size": vision.size("patch_size"),
            "context_length": text.size("max_position_embeddings"),
            "vocab_size": text.size("vocab_size"),
            "transformer_width": text.size("hidden_size"),
            "transformer_layers": text.size("num_hidden_layers"),
        },
    )


def describes_clip(folder: Path) -> bool:
    """Return whether the folder has the config.json of a CLIP."""
    path = folder / CONFIG
    try:
        return path.is_file() and read_json(path).get("model_type") == "clip"
    except WeightsError:
        return False


def _check_kind(config: Mapping[str, Any], path: Path) -> None:
    kind = config.get("model_type", "clip")
    part = _PARTS.get(kind) if isinstance(kind, str) else None
    if part:
        raise WeightsError(
            f"{path} describes only the {part} encoder of a CLIP, and prompts need both; pass a "
            "folder of a whole CLIPModel."
        )
    if kind != "clip":
        raise WeightsError(
            f"{path} describes a model of the type {str(kind)[:100]!r}, but only 'clip' is "
            "supported."
        )


def _encoder_settings(
    config: Mapping[str, Any], name: str, defaults: Mapping[str, Any], path: Path
) -> Settings:
    values = config.get(name) or {}
    source = f"{name} in {path}"
    older = config.get(f"{name}_dict")  # in transformers, it and its defaults take precedence
    if older is not None:
        values = Settings(values, source).values | Settings(older, source, defaults).values
    settings = Settings(values, source, defaults)
    eps = settings.values["layer_norm_eps"]
    if not isinstance(eps, int | float) or not abs(eps - EPS) < 1e-9:
        raise settings.error("layer_norm_eps", f"only {EPS:g} is supported")
    if settings.size("intermediate_size") != 4 * settings.size("hidden_size"):
        raise settings.error("intermediate_size", "only 4 times the hidden_size is supported")
    return settings


def _read_normalisation(folder: Path) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    for name in PREPROCESSORS:
        path = folder / name
        if path.is_file():
            content = read_json(path)
            images = Settings(content.get("image_processor", content), str(path))
            if images.values.get("do_normalize") is False:
                return (0.0,) * 3, (1.0,) * 3
            mean, std = images.channels("image_mean"), images.channels("image_std")
            if mean is not None or std is not None:
                return mean, std
    return None, None
