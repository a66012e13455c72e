"""Small helpers: devices and the environment's description; Dassl has its other ones here, too."""

import gc
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import torch
from PIL import Image

from safeio.errors import UserError
from safeio.files import (
    PathLike,
    check_isfile,
    listdir_nohidden,
    mkdir_if_missing,
    read_json,
    write_json,
)

from .fetching import download_url
from .generators import set_random_seed
from .names import check_availability, get_most_similar_str_to_a_from_b, tolist_if_not

# Dassl has all its small helpers here.
__all__ = [
    "check_availability",
    "check_isfile",
    "choose_device",
    "collect_env_info",
    "collector_paused",
    "download_url",
    "get_most_similar_str_to_a_from_b",
    "listdir_nohidden",
    "mkdir_if_missing",
    "package_versions",
    "read_image",
    "read_json",
    "set_random_seed",
    "tolist_if_not",
    "write_json",
]

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "yacs", "safetensors")


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep Python's collector of cycles from searching a million new objects again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def choose_device(cfg: Any) -> torch.device:
    """Choose the device from `cfg.DEVICE` (auto, cpu, cuda, cuda:N, mps) and `cfg.USE_CUDA`.

    Raises:
        UserError: the name is not one of these, or the device is not there.
    """
    name = str(cfg.get("DEVICE", "auto")).lower()
    if not cfg.get("USE_CUDA", True):
        return torch.device("cpu")
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdigit())):
        raise UserError(f'DEVICE "{name}" is unknown; accepted: auto, cpu, cuda, cuda:N, mps')
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UserError(
            f'DEVICE "{name}" is not there: PyTorch sees {torch.cuda.device_count()} CUDA devices; '
            "use DEVICE auto or cpu"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError('DEVICE "mps" is not there; use DEVICE auto or cpu')
    return torch.device(name)


def read_image(path: PathLike) -> Image.Image:
    """Read an image file as RGB.

    Raises:
        UserError: the file is missing or no readable image.
    """
    from ..data.images import read_image as read  # which needs this package

    return read(str(path))


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a run's numbers."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "missing"
    return versions


def collect_env_info() -> str:
    """Describe system, interpreter, packages and accelerators, one a line."""
    lines = [f"System: {platform.platform()}", f"Python: {sys.version.split()[0]}"]
    lines += [
        f"{name}: {version}" for name, version in package_versions().items() if name != "python"
    ]
    lines.append(f"CPU threads used by PyTorch: {torch.get_num_threads()}")
    if torch.cuda.is_available():
        lines.append(f"CUDA: {torch.version.cuda}")
        lines += [
            f"GPU {i}: {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())
        ]
    elif torch.backends.mps.is_available():
        lines.append("GPU: Apple MPS")
    else:
        lines.append("GPU: none")
    return "\n".join(lines)
