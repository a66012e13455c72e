"""A loaded CLIP, and whether each setting was read from its files, set by the user or assumed."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from .config import ARCHITECTURES, CLIPConfig
from .model import CLIP

READ, SET, ASSUMED = "read", "set", "assumed"


@dataclass(frozen=True)
class LoadedCLIP:
    """A model, and the metadata of its weights that a run uses and records.

    Attributes:
        model: in evaluation mode.
        pixel_mean: mean of each channel, for the normalisation of images.
        pixel_std: standard deviation of each channel.
        sha256: of the weights file (for sharded files, of their SHA-256); None for random weights.
        source: the path of the file, or the name of the random weights.
        origins: whether each of `values` was `read`, `set` or `assumed`.
        described_by: the file or table with the metadata that tensors do not contain, or empty.
        layout: whose key names the file has: OpenAI's (and open_clip's) or Hugging Face's.
        wrapper: the entry of the checkpoint that contains the weights, or empty.
        prefix: the removed prefix of every key name, or empty.
    """

    model: CLIP
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    sha256: str | None
    source: str
    origins: Mapping[str, str]
    described_by: str = ""
    layout: str = ""
    wrapper: str = ""
    prefix: str = ""

    @property
    def values(self) -> dict[str, Any]:
        """The settings that determine the features together with the tensors."""
        config = self.model.config
        return {
            "architecture": architecture_of(config),
            "activation": config.activation,
            "vision_heads": config.image_heads,
            "text_heads": config.text_heads,
            "image_size": config.image_resolution,
            "pixel_mean": list(self.pixel_mean),
            "pixel_std": list(self.pixel_std),
        }

    @property
    def facts(self) -> dict[str, Any]:
        """Every value with its origin, and how the file was read; for results.json."""
        values = {
            key: {"value": value, "origin": self.origins[key]} for key, value in self.values.items()
        }
        names = ("described_by", "layout", "wrapper", "prefix")
        return {**values, **{name: getattr(self, name) for name in names}}

    @property
    def assumed(self) -> list[str]:
        """Names of the values that no source states."""
        return [key for key in self.values if self.origins[key] == ASSUMED]

    def summary(self) -> str:
        """Return two lines for the log."""
        rounded = {
            key: [round(number, 4) for number in value] if isinstance(value, list) else value
            for key, value in self.values.items()
        }
        facts = [f"{key} {value} ({self.origins[key]})" for key, value in rounded.items()]
        found = [f"{self.layout} names"] if self.layout else []
        found += [f"in {self.wrapper!r}"] if self.wrapper else []
        found += [f"without the prefix {self.prefix!r}"] if self.prefix else []
        found += [f"described by {self.described_by}"] if self.described_by else []
        details = f" ({', '.join(found)})" if found else ""
        return f"CLIP: {self.source}{details}\nCLIP: {', '.join(facts)}"


def architecture_of(config: CLIPConfig) -> str:
    """Return OpenAI's name of an architecture, or a description of its sizes."""
    sizes = {item.name for item in fields(config)} - {
        *("activation", "transformer_heads", "vision_heads", "context_length")
    }
    for name, known in ARCHITECTURES.items():
        if all(getattr(known, size) == getattr(config, size) for size in sizes):
            return name
    layers = config.vision_layers
    blocks = "-".join(map(str, layers)) if isinstance(layers, tuple) else layers
    kind = "ResNet" if config.is_resnet else f"ViT with patches of {config.vision_patch_size}"
    return (
        f"{kind}, {blocks} blocks of width {config.vision_width}; text: "
        f"{config.transformer_layers} of width {config.transformer_width}; embedding "
        f"{config.embed_dim}"
    )
