"""Provenance of a run's results for results.json: code, machine and data.

Nothing here stops a run: unknown entries are None.
"""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ..data.datasets import Datum
from ..utils import cached

COVERS = "names, sizes, labels and class names"
_PARTS = ("train_x", "train_u", "val", "test")


@lru_cache(maxsize=1)
def code_state() -> dict[str, Any]:
    """Return the git commit of this code and whether tracked files differ from it.

    The result is computed once per process. The entries are None without git or if the code is
    not tracked by the repository around it, such as an installed package in another project.
    """
    here = Path(__file__).resolve()
    try:
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        commit = _git(here.parent, "rev-parse", "HEAD").strip()
        changes = _git(here.parent, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changes.strip())}


def _git(folder: Path, *arguments: str) -> str:
    # A hook of another repository may have set GIT_* variables; optional locks change its index.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=20,
        check=True,
    )
    return done.stdout


def data_hashes(dataset: Any) -> dict[str, Any] | None:
    """Return the SHA-256 of each split of a dataset; None if it cannot be computed.

    It covers the path of each file relative to the images' common folder, its size, label and
    class name, in order, but not the pixels, which would require reading every file. Copies of
    the data in another folder have the same hashes.
    """
    try:
        found = {part: _digest(getattr(dataset, part, None) or ()) for part in _PARTS}
    except (OSError, AttributeError, ValueError):
        return None
    return {**{part: digest for part, digest in found.items() if digest}, "covers": COVERS}


def _digest(items: Sequence[Datum]) -> str | None:
    if not items:
        return None
    # For a million files, pathlib would take longer than os.stat.
    sizes = [os.stat(item.impath).st_size for item in items]  # noqa: PTH116
    key = tuple(
        (i.impath, size, i.label, i.classname) for i, size in zip(items, sizes, strict=True)
    )
    return cached("digest", key, lambda: _digest_entries(key))


def _digest_entries(entries: Sequence[tuple[str, int, int, str]]) -> str:
    folder = os.path.commonpath([os.path.dirname(path) for path, *_ in entries])  # noqa: PTH120
    prefix, digest = folder + os.sep, hashlib.sha256()
    for path, size, label, classname in entries:
        # os.path.relpath is ten times slower than removing the prefix, and only unusual paths
        # need it.
        name = path[len(prefix) :] if path.startswith(prefix) else os.path.relpath(path, folder)
        entry = [name.replace(os.sep, "/"), size, label, classname]
        digest.update(json.dumps(entry).encode() + b"\n")
    return digest.hexdigest()


def provenance(device: str, data: Mapping[str, str] | None) -> dict[str, Any]:
    """Return code, machine and data of a run for results.json."""
    name = platform.processor() or platform.machine()
    cudnn: dict[str, Any] = {}
    if device.startswith("cuda") and torch.cuda.is_available():
        name = torch.cuda.get_device_name(torch.device(device))
        settings = torch.backends.cudnn
        cudnn = {"cudnn_version": settings.version(), "cudnn_benchmark": settings.benchmark}
    return {
        **code_state(),
        "platform": platform.platform(),
        "device_name": name,
        **cudnn,
        "threads": torch.get_num_threads(),
        "data": data,
    }
