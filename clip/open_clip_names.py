"""Download weights by open_clip's names (`open_clip:ViT-B-32/laion2b_...`), and read its metadata.

The package open_clip (Ilharco et al., 2021) lists and downloads the files; this package reads them.
"""

import difflib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from .description import PIXEL_MEAN, PIXEL_STD, Description, Settings, read_json
from .errors import WeightsError

OPEN_CLIP_PREFIX = "open_clip:"

CONFIG = "open_clip_config.json"
# Supported settings of the encoders with open_clip's defaults.
VISION_DEFAULTS: dict[str, Any] = {
    "image_size": 224,
    "layers": 12,
    "width": 768,
    "patch_size": 16,
    "head_width": 64,
    "patch_dropout": 0.0,
}
TEXT_DEFAULTS: dict[str, Any] = {
    "context_length": 77,
    "vocab_size": 49408,
    "width": 512,
    "heads": 8,
    "layers": 12,
}
_ENCODERS = {"vision_cfg": VISION_DEFAULTS, "text_cfg": TEXT_DEFAULTS}
_KNOWN_MODEL_SETTINGS = {"embed_dim", "quick_gelu", "custom_text", *_ENCODERS}


def find_open_clip(name: str, download_root: str | Path | None) -> tuple[Path, Description]:
    """Download weights named `<architecture>/<tag>` in `open_clip.list_pretrained()`.

    Returns:
        The path of the file, and its description in open_clip's tables.

    Raises:
        WeightsError: open_clip is not installed, does not know the name or cannot download it, or
            the architecture is not one of OpenAI's.
    """
    try:
        import open_clip
    except ImportError:
        raise WeightsError(
            f"'{OPEN_CLIP_PREFIX}{name}' needs the package open_clip; install it with "
            "`pip install open_clip_torch`, or pass the path of a weights file."
        ) from None
    architecture, tag = _split(name, [model for model, _ in open_clip.list_pretrained()])
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not tag:
        raise WeightsError(
            f"'{OPEN_CLIP_PREFIX}{name}' has no tag of weights; add '/' and one of "
            f"{', '.join(tags)}."
        )
    _check_known(f"weights of {architecture}", tag, tags)

    model = open_clip.get_model_config(architecture)
    weights = open_clip.get_pretrained_cfg(architecture, tag)
    images = {"mean": PIXEL_MEAN, "std": PIXEL_STD, **weights}  # the defaults of open_clip
    description = describe_model(model, images, f"open_clip's {architecture}")
    root = str(Path(download_root).expanduser()) if download_root is not None else None
    try:
        path = Path(open_clip.download_pretrained(weights, cache_dir=root))
    except Exception as error:  # its downloaders and the network raise many types
        first = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(
            f"'{OPEN_CLIP_PREFIX}{name}' could not be downloaded by open_clip ({first[:160]})."
        ) from None
    return path, description


def _split(name: str, architectures: Iterable[str]) -> tuple[str, str]:
    """Return architecture and tag ("" if missing); `ViT-B/32` counts as `ViT-B-32`."""
    if name.replace("/", "-") in architectures:
        return name.replace("/", "-"), ""
    architecture, _, tag = name.rpartition("/")
    architecture = architecture.replace("/", "-")
    _check_known("architecture with weights", architecture or tag, architectures)
    return architecture, tag


def describe(folder: Path) -> Description | None:
    """Read the description in a folder's open_clip_config.json; return None without the file.

    Raises:
        WeightsError: the architecture is not one of OpenAI's.
        OSError: the file cannot be read.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    content = read_json(path)
    model = content.get("model_cfg", content)  # absent in files of model_configs
    description = describe_model(model, content.get("preprocess_cfg") or {}, str(path))
    return replace(description, source=path.name)


def describe_model(model: Any, images: Any, source: str) -> Description:
    """Return the description in open_clip's settings of a model and of its images.

    Args:
        model: `model_cfg`.
        images: `preprocess_cfg`; only mean, std and quick_gelu (of a pretrained tag) are used.
        source: the origin of both, for messages.

    Raises:
        WeightsError: the architecture is not one of OpenAI's.
    """
    settings, preparation = Settings(model, source), Settings(images, source)
    _check_supported(settings, source)
    vision = Settings(settings.values["vision_cfg"], f"vision_cfg in {source}", VISION_DEFAULTS)
    text = Settings(settings.values["text_cfg"], f"text_cfg in {source}", TEXT_DEFAULTS)
    layers, width = vision.values["layers"], vision.size("width")
    is_resnet = isinstance(layers, list)
    # A ModifiedResNet's attention is that of its last stage, 32 times as wide as its first.
    attention_width = width * (32 if is_resnet else 1)
    quick = preparation.values.get("quick_gelu") or settings.values.get("quick_gelu")
    return Description(
        source=source,
        transformer_heads=text.size("heads"),
        vision_heads=attention_width // vision.size("head_width"),
        activation="quick_gelu" if quick else "gelu",
        pixel_mean=preparation.channels("mean"),
        pixel_std=preparation.channels("std"),
        sizes={
            "embed_dim": settings.size("embed_dim"),
            "image_resolution": vision.size("image_size"),
            "vision_layers": tuple(layers) if is_resnet else vision.size("layers"),
            "vision_width": width,
            "vision_patch_size": None if is_resnet else vision.size("patch_size"),
            "context_length": text.size("context_length"),
            "vocab_size": text.size("vocab_size"),
            "transformer_width": text.size("width"),
            "transformer_layers": text.size("layers"),
        },
    )


def _check_known(kind: str, name: str, known: Iterable[str]) -> None:
    names = sorted(set(known))
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    raise WeightsError(
        f"open_clip has no {kind} named {name!r}; did you mean {near[0]!r}? "
        f"(The form is '{OPEN_CLIP_PREFIX}<architecture>/<tag>'.)"
    )


def _check_supported(model: Settings, source: str) -> None:
    """Refuse architectures other than OpenAI's, which would be computed differently."""
    unknown = set(model.values) - _KNOWN_MODEL_SETTINGS
    for encoder, known in _ENCODERS.items():
        settings = Settings(model.values.get(encoder), f"{encoder} in {source}").values
        unknown |= {f"{encoder}.{key}" for key in set(settings) - set(known)}
    if unknown:
        raise WeightsError(
            f"{source} is not a plain CLIP ({', '.join(sorted(unknown))[:500]}); only OpenAI's "
            "image and text encoders are supported."
        )
