"""Weights by open_clip's names, where that package is installed: `open_clip:ViT-B-32/laion2b_...`.

open_clip (Ilharco et al., 2021) lists and downloads them; the file is then read by our own code.
"""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import WeightsError

OPEN_CLIP_PREFIX = "open_clip:"

# Settings of open_clip's towers that change nothing or that the state dict or `hints` tell.
_KNOWN_SETTINGS = {
    "vision_cfg": {"image_size", "layers", "width", "patch_size", "head_width", "patch_dropout"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers"},
}
_KNOWN_MODEL_SETTINGS = {"embed_dim", "quick_gelu", "custom_text", "vision_cfg", "text_cfg"}


def find_open_clip(name: str, download_root: str | Path | None) -> tuple[Path, dict[str, Any]]:
    """Download weights of open_clip.

    Args:
        name: `<architecture>/<tag>` as in `open_clip.list_pretrained()`.
        download_root: folder of downloads; None for the folders that open_clip uses.

    Returns:
        The path of the file, and what only open_clip's tables tell: heads, activation and
        normalisation (keys `transformer_heads`, `vision_heads`, `activation`, `pixel_mean`,
        `pixel_std`).

    Raises:
        WeightsError: open_clip is not installed, does not know the name, cannot fetch it, or the
            architecture is not that of a CLIP as OpenAI built it.
    """
    try:
        import open_clip
    except ImportError:
        raise WeightsError(
            f"'{OPEN_CLIP_PREFIX}{name}' needs the package open_clip; install it with "
            "`pip install open_clip_torch`, or give the path of a weights file."
        ) from None
    architecture, tag = _split(name, [model for model, _ in open_clip.list_pretrained()])
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not tag:
        raise WeightsError(
            f"'{OPEN_CLIP_PREFIX}{name}' lacks the tag of the weights; add '/' and one of "
            f"{', '.join(tags)}."
        )
    _check_known(f"weights of {architecture}", tag, tags)

    model = open_clip.get_model_config(architecture)
    _check_plain(architecture, model)
    weights = open_clip.get_pretrained_cfg(architecture, tag)
    root = str(Path(download_root).expanduser()) if download_root is not None else None
    try:
        path = Path(open_clip.download_pretrained(weights, cache_dir=root))
    except Exception as error:  # whatever its downloaders and the network raise
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"'{OPEN_CLIP_PREFIX}{name}' could not be downloaded by open_clip ({first[:160]})."
        ) from None
    return path, _told(model, weights)


def _split(name: str, architectures: Iterable[str]) -> tuple[str, str]:
    """Architecture and tag ("" where there is none); `ViT-B/32` counts as `ViT-B-32`."""
    if name.replace("/", "-") in architectures:
        return name.replace("/", "-"), ""
    architecture, _, tag = name.rpartition("/")
    architecture = architecture.replace("/", "-")
    _check_known("architecture with weights", architecture or tag, architectures)
    return architecture, tag


def _told(model: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    vision, text = model["vision_cfg"], model["text_cfg"]
    head_width = vision.get("head_width", 64)
    # A ModifiedResNet's attention is that of its last stage, 32 times as wide as its first.
    attention_width = vision["width"] * (32 if isinstance(vision["layers"], list) else 1)
    quick = weights.get("quick_gelu", False) or model.get("quick_gelu", False)
    told = {
        "transformer_heads": text.get("heads"),
        "vision_heads": attention_width // head_width,
        "activation": "quick_gelu" if quick else "gelu",
    }
    for ours, theirs in (("pixel_mean", "mean"), ("pixel_std", "std")):
        if theirs in weights:
            told[ours] = tuple(weights[theirs])
    return told


def _check_known(what: str, given: str, known: Iterable[str]) -> None:
    names = sorted(set(known))
    if given in names:
        return
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.0)
    raise WeightsError(
        f"open_clip has no {what} named {given!r}; did you mean {near[0]!r}? "
        f"(The form is '{OPEN_CLIP_PREFIX}<architecture>/<tag>'.)"
    )


def _check_plain(architecture: str, model: Mapping[str, Any]) -> None:
    """Refuse architectures that our towers would compute differently or not at all."""
    unknown = set(model) - _KNOWN_MODEL_SETTINGS
    for tower, settings in _KNOWN_SETTINGS.items():
        unknown |= {f"{tower}.{key}" for key in set(model[tower]) - settings}
    if unknown:
        raise WeightsError(
            f"open_clip's {architecture} is no plain CLIP ({', '.join(sorted(unknown))}); only "
            "OpenAI's image and text towers are supported."
        )
