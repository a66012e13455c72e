"""The device of a run, and the package versions and hardware that affect its results."""

import platform
from functools import lru_cache
from importlib import metadata
from typing import Any

import torch

from safeio.errors import UserError

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "yacs", "safetensors")


def choose_device(cfg: Any) -> torch.device:
    """Choose the device from `cfg.DEVICE` (auto, cpu, cuda, cuda:N, mps) and `cfg.USE_CUDA`.

    Raises:
        UserError: the name is unknown, or the device is not available.
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
            f'DEVICE "{name}" is not available: PyTorch finds {torch.cuda.device_count()} CUDA '
            "devices; use DEVICE auto or cpu"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError('DEVICE "mps" is not available; use DEVICE auto or cpu')
    return torch.device(name)


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect a run's results."""
    versions = {package: _version(package) for package in PACKAGES}
    return {"python": platform.python_version(), **versions}


@lru_cache  # reading metadata takes milliseconds, which a process with many runs would repeat
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def collect_env_info() -> str:
    """Describe system, Python, packages and accelerators, one per line."""
    versions = package_versions()
    lines = [f"System: {platform.platform()}", f"Python: {versions.pop('python')}"]
    lines += [f"{name}: {version}" for name, version in versions.items()]
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
