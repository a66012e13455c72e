"""Load a CLIP by any supported name or path."""

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from safeio.checksums import file_digest

from .build import build_model, build_random, convert_weights
from .checkpoint import read_checkpoint, weights_files
from .config import ARCHITECTURES, CLIPConfig, canonical_name, sizes_of
from .description import PIXEL_MEAN, PIXEL_STD, Description
from .download import MODELS, SHA256, fetch
from .errors import WeightsError
from .files import choose_weights, describe_weights
from .hub import HUB_PREFIXES, fetch_from_hub, hub_name
from .loaded import ASSUMED, READ, SET, LoadedCLIP
from .open_clip_names import OPEN_CLIP_PREFIX, find_open_clip

__all__ = ["LoadedCLIP", "load_clip"]

BUNDLED = {name: Path(__file__).parent / f"{name}.safetensors" for name in ("mini", "mini_vit")}
RANDOM_PREFIX = "random:"
FILE_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")


def known_config(name: str) -> CLIPConfig | None:
    """Return the architecture of OpenAI's, random or bundled weights without loading them."""
    name = name.removeprefix(RANDOM_PREFIX)
    if name in BUNDLED:
        with safe_open(BUNDLED[name], "pt") as file:
            return CLIPConfig.from_dict(json.loads(file.metadata()["config"]))
    return ARCHITECTURES.get(canonical_name(name) or name)


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
        name: one of OpenAI's names (`RN50`, `ViT-B/16`, ...; downloaded once), `mini` or `mini_vit`
            (bundled), `open_clip:<architecture>/<tag>` (needs that package), `random:<name>`
            (OpenAI's architecture with seeded random weights), the path of a weights file or of a
            folder that Hugging Face's transformers or open_clip wrote, or a name on Hugging Face's
            hub (`openai/clip-vit-base-patch32`, also `hf:...`; downloaded once). An existing path
            takes precedence over all names but OpenAI's, the bundled, `open_clip:` and `random:`.
        device: device of the model.
        dtype: fp32, or fp16 or bf16 cast as OpenAI's `convert_weights` does.
        transformer_heads: heads of the text encoder; None for those that the weights state.
        vision_heads: heads of the image encoder; None for those that the weights state.
        context_length: use only this many of the text encoder's positions.
        activation: `quick_gelu` or `gelu`; None for that which the weights state.
        download_root: folder of downloaded weights; None for `~/.cache/clip`, and for the defaults
            of open_clip and huggingface_hub.

    Raises:
        WeightsError: the weights cannot be loaded, are not those of a CLIP, contain NaN, contradict
            their description, or do not fit an argument.
    """
    arguments: dict[str, Any] = {
        "transformer_heads": transformer_heads,
        "vision_heads": vision_heads,
        "context_length": context_length,
        "activation": activation,
    }
    overrides = {key: value for key, value in arguments.items() if value is not None}
    if name.startswith(RANDOM_PREFIX):
        model = build_random(name.removeprefix(RANDOM_PREFIX), **overrides)
        loaded = LoadedCLIP(model, PIXEL_MEAN, PIXEL_STD, None, name, _origins(overrides, True))
    else:
        loaded = _load_file(*_find(name, download_root), overrides)
    if dtype != torch.float32:
        convert_weights(loaded.model, dtype)
    loaded.model.to(device)
    return loaded


def _find(name: str, download_root: str | Path | None) -> tuple[Path, Description | None, str]:
    """Return the file of a name or path, the name's description and its verified SHA-256, or ""."""
    if name.startswith(OPEN_CLIP_PREFIX):
        return *find_open_clip(name.removeprefix(OPEN_CLIP_PREFIX), download_root), ""
    if name in BUNDLED:
        return BUNDLED[name], None, ""
    path = Path(name).expanduser()
    canonical = name if name in MODELS else None if path.exists() else canonical_name(name)
    if canonical is not None:
        url = MODELS[canonical]
        return fetch(url, download_root), None, url.split("/")[-2]  # `fetch` has verified it
    if path.is_dir():
        return choose_weights(path, lambda file: (path / file).is_file()), None, ""
    return path if path.is_file() else _fetch_other(name, path, download_root), None, ""


def _fetch_other(name: str, path: Path, download_root: str | Path | None) -> Path:
    """Download a name on the hub, or explain why the name or path is wrong."""
    is_path = path.suffix in FILE_SUFFIXES or name.startswith((".", "/", "~"))
    if path.exists() or (is_path and not name.startswith(HUB_PREFIXES)):
        fault = "is not a file" if path.exists() else "does not exist"
        raise WeightsError(
            f"The weights file {name} {fault}; pass the path of a .pt or .safetensors file or one "
            f"of {_names()}."
        )
    near = difflib.get_close_matches(name, [*ARCHITECTURES, *BUNDLED], n=1, cutoff=0.4)
    # `ViT-B/15` has the form of a name on the hub, but is a misspelt architecture.
    misspelt = difflib.get_close_matches(name, ARCHITECTURES, n=1, cutoff=0.8)
    hub = hub_name(name)
    if hub is not None and not misspelt:
        return fetch_from_hub(hub, download_root)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise WeightsError(
        f"{name!r} is not a known CLIP; {hint}Choose one of {_names()}, "
        f"'{OPEN_CLIP_PREFIX}<architecture>/<tag>', a name on Hugging Face's hub such as "
        "'openai/clip-vit-base-patch32', or the path of a weights file."
    )


def _names() -> str:
    return ", ".join([*ARCHITECTURES, *BUNDLED])


def _load_file(
    path: Path, description: Description | None, digest: str, overrides: Mapping[str, Any]
) -> LoadedCLIP:
    """Read a file; precedence: overrides, the name's description, metadata, files next to it."""
    try:
        digest = digest or _digest_of(path)
        weights, metadata = read_checkpoint(path)
        known = next((name for name, sha256 in SHA256.items() if sha256 == digest), "")
        if known:
            source = f"OpenAI's {known}"
            description = Description(source, pixel_mean=PIXEL_MEAN, pixel_std=PIXEL_STD)
        description = description or metadata or describe_weights(path, weights.layout)
        description = description or Description()
        description.check(sizes_of(weights.tensors))
        arguments = {**description.build_arguments, **overrides}
        model = build_model(weights.tensors, dtype=torch.float32, **arguments)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror or error}).") from None
    except WeightsError as error:
        if str(path) in str(error):
            raise
        reason = str(error)
        raise WeightsError(f"{path} cannot be used: {reason[0].lower()}{reason[1:]}") from None
    return LoadedCLIP(
        model,
        description.pixel_mean or PIXEL_MEAN,
        description.pixel_std or PIXEL_STD,
        digest,
        str(path),
        _origins(overrides, bool(known), description),
        described_by=description.source,
        layout=weights.layout,
        wrapper=weights.wrapper,
        prefix=weights.prefix,
    )


def _origins(
    overrides: Mapping[str, Any], published: bool, description: Description | None = None
) -> dict[str, str]:
    """Return whether each setting was read from the weights' files, set, or assumed."""
    stated = vars(description or Description())
    origins = {"architecture": READ, "image_size": READ}
    for setting in ("activation", "vision_heads", "text_heads", "pixel_mean", "pixel_std"):
        name = "transformer_heads" if setting == "text_heads" else setting
        known = published or stated[name] is not None
        origins[setting] = SET if name in overrides else READ if known else ASSUMED
    return origins


def _digest_of(path: Path) -> str:
    """Return the SHA-256 of the weights, and compare it with a downloaded file's name.

    Raises:
        WeightsError: the SHA-256 is not that of the downloaded file.
        OSError: a file cannot be read.
    """
    files = weights_files(path)
    digests = [file_digest(file) for file in files]
    for file, digest in zip(files, digests, strict=True):
        stored = file.resolve().name  # huggingface_hub's cache names large files by their SHA-256
        if re.fullmatch("[0-9a-f]{64}", stored) and stored != digest:
            raise WeightsError(
                f"{file} is damaged: its SHA-256 is {digest}, not {stored}; delete "
                f"{file.resolve()} and run again to download it."
            )
    return digests[0] if len(files) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
