"""Where a CLIP's weights come from: `load_clip` takes every name and path this project knows."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .checkpoint import PIXEL_MEAN, PIXEL_STD, Checkpoint, read_checkpoint
from .config import ARCHITECTURES, canonical_name
from .download import MODELS, fetch, sha256_of
from .errors import WeightsError
from .model import CLIP, build_model, build_random, convert_weights
from .open_clip_names import OPEN_CLIP_PREFIX, find_open_clip

MINI = "mini"
MINI_PATH = Path(__file__).parent / "mini.safetensors"
RANDOM_PREFIX = "random:"
FILE_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")


@dataclass(frozen=True)
class LoadedCLIP:
    """A model and what a run has to know and to record about its weights.

    Attributes:
        model: in evaluation mode.
        pixel_mean: mean of the channels that images are normalised with.
        pixel_std: their standard deviation.
        sha256: of the weights file's bytes; None for random weights.
        source: the path of the file, or the name that random weights were made by.
    """

    model: CLIP
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    sha256: str | None
    source: str


def load_clip(
    name: str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    transformer_heads: int | None = None,
    vision_heads: int | None = None,
    context_length: int | None = None,
    activation: str | None = None,
    download_root: str | Path | None = None,
) -> LoadedCLIP:
    """Load a CLIP by name or path.

    Args:
        name: one of OpenAI's names (`RN50`, `ViT-B/16`, ...; downloaded once), `mini` (bundled),
            `open_clip:<architecture>/<tag>` (where that package is installed), `random:<name>`
            (OpenAI's architecture with seeded random weights), or the path of a weights file.
        device: where the model goes.
        dtype: fp32, or fp16 or bf16 cast as OpenAI's `convert_weights` does.
        transformer_heads: heads of the text tower where the weights do not tell.
        vision_heads: heads of the image tower where the weights do not tell.
        context_length: use only so many of the text tower's positions.
        activation: `quick_gelu` or `gelu` where the weights do not tell.
        download_root: folder of downloaded weights; None for `~/.cache/clip`.

    Raises:
        WeightsError: the weights cannot be had, are not CLIP's, or an argument does not fit them.
    """
    overrides: dict[str, Any] = {
        "transformer_heads": transformer_heads,
        "vision_heads": vision_heads,
        "context_length": context_length,
        "activation": activation,
    }
    given = {key: value for key, value in overrides.items() if value is not None}
    if name.startswith(RANDOM_PREFIX):
        model = build_random(name.removeprefix(RANDOM_PREFIX), **given)
        loaded = LoadedCLIP(model, PIXEL_MEAN, PIXEL_STD, None, name)
    else:
        loaded = _load_file(*_find(name, download_root), given)
    if dtype != torch.float32:
        convert_weights(loaded.model, dtype)
    loaded.model.to(device)
    return loaded


def _find(name: str, download_root: str | Path | None) -> tuple[Path, dict[str, Any]]:
    """The file behind a name or path, and what the name tells beyond the file."""
    if name.startswith(OPEN_CLIP_PREFIX):
        return find_open_clip(name.removeprefix(OPEN_CLIP_PREFIX), download_root)
    if name == MINI:
        return MINI_PATH, {}
    if name in MODELS:
        return fetch(MODELS[name], download_root), {}
    path = Path(name).expanduser()
    if path.is_file():
        return path, {}
    canonical = canonical_name(name)
    if canonical is not None:
        return fetch(MODELS[canonical], download_root), {}
    if path.exists() or path.suffix in FILE_SUFFIXES or name.startswith((".", "/", "~")):
        wrong = "is no file" if path.exists() else "does not exist"
        raise WeightsError(
            f"The weights file {name} {wrong}; give the path of a .pt or .safetensors file or one "
            f"of {_names()}."
        )
    near = difflib.get_close_matches(name, [*ARCHITECTURES, MINI], n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise WeightsError(
        f"{name!r} is no known CLIP; {hint}Choose one of {_names()}, "
        f"'{OPEN_CLIP_PREFIX}<architecture>/<tag>', or the path of a weights file."
    )


def _names() -> str:
    return ", ".join([*ARCHITECTURES, MINI])


def _load_file(path: Path, told: Mapping[str, Any], given: Mapping[str, Any]) -> LoadedCLIP:
    """Read a file; what is given goes before what the name tells, and that before the file."""
    try:
        checkpoint = read_checkpoint(path)
        model = _build(checkpoint, told, given)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror or error}).") from None
    except WeightsError as error:
        if str(path) in str(error):
            raise
        reason = str(error)
        raise WeightsError(f"{path} cannot be used: {reason[0].lower()}{reason[1:]}") from None
    mean = told.get("pixel_mean", checkpoint.pixel_mean)
    std = told.get("pixel_std", checkpoint.pixel_std)
    return LoadedCLIP(model, mean, std, sha256_of(path), str(path))


def _build(checkpoint: Checkpoint, told: Mapping[str, Any], given: Mapping[str, Any]) -> CLIP:
    hints = {
        key: value
        for key, value in told.items()
        if key not in ("pixel_mean", "pixel_std") and value is not None
    }
    return build_model(
        checkpoint.state_dict, dtype=torch.float32, **{**checkpoint.hints, **hints, **given}
    )
