"""CLIP's sizes: those of the nine published architectures, and those of a state dict.

CLIP (Radford et al., ICML 2021), tables 18 to 20.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from .errors import WeightsError

HEAD_WIDTH = 64
# Configuration keys of the arguments.
_HEADS_SETTINGS = {
    "vision_heads": "MODEL.CLIP.VISION_HEADS",
    "transformer_heads": "MODEL.CLIP.TEXT_HEADS",
}
ACTIVATIONS = ("quick_gelu", "gelu")

# Entries of published files that are settings or constants, in any module.
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")


def is_weight(key: str) -> bool:
    """Return whether an entry of a published file is a tensor of the model, not a setting."""
    return key.rpartition(".")[2] not in _NOT_WEIGHTS


def check_finite(key: str, value: Tensor) -> None:
    """Refuse weights that would make every result NaN.

    Raises:
        WeightsError: a value is NaN or infinite, or the exponential of `logit_scale` is.
    """
    if not value.is_floating_point():
        return
    if not value.float().isfinite().all():
        raise WeightsError(
            f"{key!r} holds values that are NaN or infinite: the file is damaged, or its training "
            "diverged; download it again, or use an earlier checkpoint."
        )
    if key == "logit_scale" and not value.float().exp().isfinite().all():
        raise WeightsError(
            f"'logit_scale' is {value.max().item():g}, whose exponential is infinite; save the "
            "logarithm of the factor that multiplies the similarities, 4.6 in OpenAI's weights."
        )


@dataclass(frozen=True)
class CLIPConfig:
    """The sizes and settings that determine a CLIP except its weights.

    Attributes:
        embed_dim: E, the width of the shared embedding space.
        image_resolution: side of the square input images in pixels.
        vision_layers: blocks per stage (ModifiedResNet), or number of blocks (vision transformer).
        vision_width: width of the image encoder.
        vision_patch_size: side of a patch; None for a ModifiedResNet.
        vision_heads: attention heads of the image encoder; None for heads of width 64.
        context_length: tokens of the longest text, including SOS and EOS.
        vocab_size: rows of the token embedding.
        transformer_width: D, the width of the text encoder.
        transformer_heads: attention heads of the text encoder; None for heads of width 64.
        transformer_layers: blocks of the text encoder.
        activation: `quick_gelu` (OpenAI's weights) or `gelu` (most of open_clip's).
    """

    embed_dim: int
    image_resolution: int
    vision_layers: tuple[int, int, int, int] | int
    vision_width: int
    vision_patch_size: int | None
    vision_heads: int | None = None
    context_length: int = 77
    vocab_size: int = 49408
    transformer_width: int = 512
    transformer_heads: int | None = None
    transformer_layers: int = 12
    activation: str = "quick_gelu"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise WeightsError(
                f"The activation is {self.activation!r}, but must be one of "
                f"{' or '.join(ACTIVATIONS)}."
            )
        _check_heads("transformer_heads", "text", self.transformer_width, self.transformer_heads)
        _check_heads("vision_heads", "image", self.image_attention_width, self.vision_heads)

    @property
    def is_resnet(self) -> bool:
        """Whether the image encoder is a ModifiedResNet, not a vision transformer."""
        return not isinstance(self.vision_layers, int)

    @property
    def image_attention_width(self) -> int:
        """Width of the image encoder's attention, in a ModifiedResNet that of its last stage."""
        return self.vision_width * 32 if self.is_resnet else self.vision_width

    @property
    def image_heads(self) -> int:
        """Attention heads of the image encoder."""
        return self.vision_heads or self.image_attention_width // HEAD_WIDTH

    @property
    def text_heads(self) -> int:
        """Attention heads of the text encoder."""
        return self.transformer_heads or self.transformer_width // HEAD_WIDTH

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CLIPConfig":
        """Invert `dataclasses.asdict`, also after a round trip through JSON.

        Raises:
            WeightsError: a field is unknown or missing.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise WeightsError(f"A CLIP configuration has no field {unknown[0]!r}.")
        layers = values.get("vision_layers")
        known = dict(values)
        if isinstance(layers, list | tuple):
            known["vision_layers"] = tuple(layers)
        try:
            return cls(**known)
        except TypeError as error:
            raise WeightsError(f"A CLIP configuration is incomplete: {error}.") from None


def _check_heads(argument: str, encoder: str, width: int, heads: int | None) -> None:
    if heads is None:
        if width < HEAD_WIDTH:
            raise WeightsError(
                f"The {encoder} encoder is {width} wide, too narrow for the usual heads of width "
                f"{HEAD_WIDTH}; set {argument} ({_HEADS_SETTINGS[argument]})."
            )
        heads = width // HEAD_WIDTH
    if heads < 1 or width % heads:
        raise WeightsError(
            f"The {encoder} encoder is {width} wide, which {heads} heads cannot share evenly; "
            f"set another {argument} ({_HEADS_SETTINGS[argument]})."
        )


def _resnet(
    embed: int, resolution: int, layers: tuple[int, int, int, int], width: int, text: int
) -> CLIPConfig:
    return CLIPConfig(embed, resolution, layers, width, None, transformer_width=text)


def _vit(embed: int, resolution: int, layers: int, width: int, patch: int) -> CLIPConfig:
    # In the published models, the text encoder is as wide as the embedding.
    return CLIPConfig(embed, resolution, layers, width, patch, transformer_width=embed)


ARCHITECTURES: dict[str, CLIPConfig] = {
    "RN50": _resnet(1024, 224, (3, 4, 6, 3), 64, 512),
    "RN101": _resnet(512, 224, (3, 4, 23, 3), 64, 512),
    "RN50x4": _resnet(640, 288, (4, 6, 10, 6), 80, 640),
    "RN50x16": _resnet(768, 384, (6, 8, 18, 8), 96, 768),
    "RN50x64": _resnet(1024, 448, (3, 15, 36, 10), 128, 1024),
    "ViT-B/32": _vit(512, 224, 12, 768, 32),
    "ViT-B/16": _vit(512, 224, 12, 768, 16),
    "ViT-L/14": _vit(768, 224, 24, 1024, 14),
    "ViT-L/14@336px": _vit(768, 336, 24, 1024, 14),
}


def _spelling(name: str) -> str:
    return re.sub(r"[^a-z0-9]|px$", "", name.lower())


_BY_SPELLING = {_spelling(name): name for name in ARCHITECTURES}


def canonical_name(name: str) -> str | None:
    """Return OpenAI's spelling of an architecture (`vit_b16` -> `ViT-B/16`), or None."""
    return _BY_SPELLING.get(_spelling(name))


def config_from_state_dict(
    state_dict: Mapping[str, Tensor], *, context_length: int | None = None, **settings: Any
) -> CLIPConfig:
    """Read the sizes from the shapes of a state dict with OpenAI's key names.

    Args:
        state_dict: a whole CLIP.
        context_length: use only this many of the text encoder's positions; None for all.
        **settings: heads and activation, which shapes do not determine; None for the defaults.

    Raises:
        WeightsError: the state dict is not that of a CLIP, or an argument does not fit it.
    """
    config = sizes_of(state_dict)
    positions = config["context_length"]
    if context_length is not None:
        config["context_length"] = context_length
    if not 3 <= config["context_length"] <= positions:
        raise WeightsError(
            f"context_length is {context_length}, but must be between 3 and the {positions} "
            "positions of these weights."
        )
    return CLIPConfig(**config, **{k: value for k, value in settings.items() if value is not None})


def sizes_of(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the fields of `CLIPConfig` that shapes determine: all but heads and activation.

    Raises:
        WeightsError: the state dict is not that of a CLIP.
    """
    _check_both_encoders(state_dict)
    try:
        positions, width = state_dict["positional_embedding"].shape
        return {
            **_image_sizes(state_dict),
            "embed_dim": state_dict["text_projection"].shape[1],
            "context_length": positions,
            "vocab_size": state_dict["token_embedding.weight"].shape[0],
            "transformer_width": width,
            "transformer_layers": count_blocks(state_dict, r"transformer\.resblocks"),
        }
    except KeyError as error:
        raise WeightsError(f"This state dict is not that of a CLIP: {error} is missing.") from None
    except (ValueError, IndexError, TypeError):
        raise WeightsError("The shapes of this state dict are not those of a CLIP.") from None


def _check_both_encoders(state_dict: Mapping[str, Tensor]) -> None:
    image = any(key.startswith("visual.") for key in state_dict)
    text = any(key.startswith(("transformer.", "token_embedding.")) for key in state_dict)
    if image == text:
        return  # both, or neither, which the first missing entry reports
    only, other = ("image", "text") if image else ("text", "image")
    raise WeightsError(
        f"This state dict is not that of a CLIP: it contains only the {only} encoder, and prompts "
        f"need the {other} encoder, too."
    )


def _image_sizes(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    # Any entry of a ModifiedResNet identifies it, so that messages name its missing entries.
    if any(key.startswith(("visual.layer", "visual.attnpool.")) for key in state_dict):
        width, patch = state_dict["visual.layer1.0.conv1.weight"].shape[0], None
        grid = _grid(state_dict["visual.attnpool.positional_embedding"])
        layers: Any = tuple(count_blocks(state_dict, rf"visual\.layer{n}") for n in (1, 2, 3, 4))
        resolution = grid * 32  # the stages halve the image five times
    else:
        width, _, patch, _ = state_dict["visual.conv1.weight"].shape
        grid = _grid(state_dict["visual.positional_embedding"])
        layers = count_blocks(state_dict, r"visual\.transformer\.resblocks")
        resolution = patch * grid
    return {
        "image_resolution": resolution,
        "vision_layers": layers,
        "vision_width": width,
        "vision_patch_size": patch,
    }


def _grid(positions: Tensor) -> int:
    # The first position belongs to the pooled token, the others form a square.
    return round((positions.shape[0] - 1) ** 0.5)


def count_blocks(state_dict: Mapping[str, Tensor], prefix: str) -> int:
    """Count the different numbers after a prefix of the names, a regular expression."""
    pattern = rf"{prefix}\.(\d{{1,6}})\."
    numbers = {match.group(1) for key in state_dict if (match := re.match(pattern, key))}
    return len(numbers)
