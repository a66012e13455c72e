"""CLIP as Hugging Face's transformers saves it: its names of tensors, and its configuration files.

transformers splits the queries', keys' and values' projection and saves the features' projections
as linear layers; all else has the same shape under another name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .config import ACTIVATIONS, check_finite, count_blocks
from .description import Description, Settings, read_json
from .errors import WeightsError

CONFIG = "config.json"
PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
EPS = 1e-5  # of all norms

_TOWERS = {
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
        "pre_layrnorm.weight": "visual.ln_pre.weight",  # they spell it so
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
_TOWER_DEFAULTS = {
    "hidden_act": "quick_gelu",
    "layer_norm_eps": EPS,
    "num_hidden_layers": 12,
}
TEXT_DEFAULTS = {
    **_TOWER_DEFAULTS,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
}
VISION_DEFAULTS = {
    **_TOWER_DEFAULTS,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
}
_PARTS = {"clip_vision_model": "image", "clip_text_model": "text"}


def is_hugging_face(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of transformers."""
    return any(key.startswith(tuple(_TOWERS)) for key in tensors)


def from_hugging_face(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under OpenAI's names.

    Raises:
        WeightsError: an entry is missing or unknown, or one tower is.
    """
    left = {key: value for key, value in tensors.items() if not key.endswith(".position_ids")}
    for part, tower in (("image", "text_model."), ("text", "vision_model.")):
        if not any(key.startswith(tower) for key in left):
            raise WeightsError(
                f"It holds only the {part} tower of a CLIP, and prompts need both; save the whole "
                "CLIPModel."
            )
    found: dict[str, Tensor] = {}
    for tower, names in _TOWERS.items():
        for theirs, ours in names.items():
            found[ours] = _take(left, f"{tower}{theirs}")
        for number in range(count_blocks(left, rf"{tower}encoder\.layers")):
            block = f"{tower}encoder.layers.{number}."
            found.update(_block(left, block, f"{_BLOCKS[tower]}{number}."))
    for theirs, ours in _PROJECTIONS.items():
        found[ours] = _take(left, theirs).t()
    found["logit_scale"] = _take(left, "logit_scale")
    if left:
        raise WeightsError(f"It is no plain CLIP: {next(iter(left))[:100]!r} is unknown.")
    return found


def _take(left: dict[str, Tensor], key: str) -> Tensor:
    if key not in left:
        raise WeightsError(f"It is not the whole of a CLIP: it lacks {key!r}.")
    check_finite(key, left[key])
    return left.pop(key)


def _block(left: dict[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    found = {}
    for kind in ("weight", "bias"):
        for their_layer, our_layer in _LAYERS.items():
            found[f"{ours}{our_layer}.{kind}"] = _take(left, f"{theirs}{their_layer}.{kind}")
        parts = [_take(left, f"{theirs}self_attn.{name}_proj.{kind}") for name in "qkv"]
        if len({part.shape for part in parts}) > 1 or not parts[0].dim():
            raise WeightsError(f"The queries, keys and values of {theirs} have different shapes.")
        found[f"{ours}attn.in_proj_{kind}"] = torch.cat(parts)
    return found


def describe(folder: Path) -> Description | None:
    """Read the description that transformers' files in a folder give; None without config.json.

    Raises:
        WeightsError: they describe no whole CLIP, or one that would be computed differently here.
        OSError: one cannot be read.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    config = read_json(path)
    _check_kind(config, path)
    text = _tower(config, "text_config", TEXT_DEFAULTS, path)
    vision = _tower(config, "vision_config", VISION_DEFAULTS, path)
    activation = text.values["hidden_act"]
    if activation not in ACTIVATIONS:
        raise text.refuse("hidden_act", f"only {' and '.join(ACTIVATIONS)} can be computed")
    if vision.values["hidden_act"] != activation:
        raise vision.refuse("hidden_act", f"that of the text tower is {activation!r}")
    embed = Settings(config, str(path), {"projection_dim": 512}).size("projection_dim")
    mean, std = _normalisation(folder)
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
    """Whether there is a config.json, and it is a CLIP's."""
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
            f"{path} describes only the {part} tower of a CLIP, and prompts need both; give a "
            "folder of a whole CLIPModel."
        )
    if kind != "clip":
        raise WeightsError(
            f"{path} describes a model of the type {str(kind)[:100]!r}, but only 'clip' can be "
            "used."
        )


def _tower(
    config: Mapping[str, Any], name: str, defaults: Mapping[str, Any], path: Path
) -> Settings:
    values = config.get(name) or {}
    source = f"{name} in {path}"
    older = config.get(f"{name}_dict")  # transformers lets it and its defaults win
    if older is not None:
        values = Settings(values, source).values | Settings(older, source, defaults).values
    tower = Settings(values, source, defaults)
    eps = tower.values["layer_norm_eps"]
    if not isinstance(eps, int | float) or not abs(eps - EPS) < 1e-9:
        raise tower.refuse("layer_norm_eps", f"only {EPS:g} can be computed")
    if tower.size("intermediate_size") != 4 * tower.size("hidden_size"):
        raise tower.refuse("intermediate_size", "only 4 times the hidden_size can be computed")
    return tower


def _normalisation(folder: Path) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
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
