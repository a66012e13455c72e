"""Metadata of a CLIP that its weights do not contain, from the file or JSON files next to it.

Shapes determine neither heads nor activation nor the normalisation of images. A description of
these also repeats sizes, which must agree with the tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safeio.untrusted import parse_json, read_bounded

from .errors import WeightsError

# The normalisation of OpenAI's training images, which most of open_clip's models share.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)

LARGEST_JSON = 1 << 24  # bytes
LARGEST_SIZE = 1 << 24


@dataclass(frozen=True)
class Description:
    """Metadata of a CLIP; None where the source states nothing.

    Attributes:
        source: name of the file or table, for messages.
        transformer_heads: attention heads of the text encoder.
        vision_heads: attention heads of the image encoder.
        activation: `quick_gelu` or `gelu`.
        pixel_mean: mean of each channel, for the normalisation of images.
        pixel_std: standard deviation of each channel.
        sizes: fields of `CLIPConfig` that shapes also determine.
    """

    source: str = ""
    transformer_heads: int | None = None
    vision_heads: int | None = None
    activation: str | None = None
    pixel_mean: tuple[float, ...] | None = None
    pixel_std: tuple[float, ...] | None = None
    sizes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def build_arguments(self) -> dict[str, Any]:
        """The arguments of `build_model` that the source states."""
        values = {
            "transformer_heads": self.transformer_heads,
            "vision_heads": self.vision_heads,
            "activation": self.activation,
        }
        return {key: value for key, value in values.items() if value is not None}

    def check(self, sizes: Mapping[str, Any]) -> None:
        """Compare the stated sizes with those of the tensors.

        Raises:
            WeightsError: one differs.
        """
        for key, stated in self.sizes.items():
            if stated != sizes[key]:
                raise WeightsError(
                    f"{self.source} states that {key} is {str(stated)[:100]}, but the tensors are "
                    f"those of a CLIP whose {key} is {sizes[key]}; pass the matching weights."
                )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that should not be large.

    Raises:
        WeightsError: the file is not a JSON object, or is large.
        OSError: the file cannot be read.
    """
    try:
        content = parse_json(read_bounded(path, LARGEST_JSON))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise WeightsError(f"{path} is not a JSON object; download it again, or move it away.")
    return content


class Settings:
    """The settings of an untrusted JSON object, checked when they are read."""

    def __init__(self, values: Any, source: str, defaults: Mapping[str, Any] | None = None) -> None:
        if not isinstance(values, Mapping):
            raise WeightsError(f"{source} is not a group of settings.")
        self.values = {**(defaults or {}), **values}
        self.source = source

    def error(self, key: str, accepted: str) -> WeightsError:
        """Return the error for a setting that cannot be used."""
        value = repr(self.values.get(key))[:100]
        return WeightsError(f"{self.source} states that {key} is {value}, but {accepted}.")

    def size(self, key: str) -> int:
        """Return a positive whole number; the file may have two equal ones (height and width)."""
        value = self.values.get(key)
        if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LARGEST_SIZE:
            raise self.error(key, "a positive whole number is needed")
        return value

    def channels(self, key: str) -> tuple[float, ...] | None:
        """Return one number for each of three channels (a single one counts for all), or None."""
        value = self.values.get(key)
        if value is None:
            return None
        numbers = value if isinstance(value, list | tuple) else [value] * 3
        real = [isinstance(n, int | float) and not isinstance(n, bool) for n in numbers]
        if len(numbers) != 3 or not all(real) or not all(abs(n) < 1e6 for n in numbers):
            raise self.error(key, "three numbers are needed")
        return tuple(float(number) for number in numbers)
