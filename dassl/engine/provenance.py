"""Where a run's numbers come from: the code, the machine and the data, for results.json.

Nothing here ever ends a run: what cannot be found out is None.
"""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ..data.datasets import Datum

COVERS = "names, sizes, labels and class names"
_PARTS = ("train_x", "train_u", "val", "test")


@lru_cache(maxsize=1)
def code_state() -> dict[str, Any]:
    """The git commit of this code and whether tracked files differ from it.

    Asked once in a process, whose code does not change either. None without git, or where the code
    is no part of a repository, such as an installed package inside of another project's.
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
    # Without what a hook of another repository would tell git, and without touching its index.
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
    """SHA-256 of each part of the data that a run works with.

    It covers each file's name below the images' common folder, its size, its label and the name of
    its class, in order; not the pixels, which would take reading every file. So it is the same for
    a copy of the data elsewhere.

    Args:
        dataset: with the lists train_x, train_u, val and test, as far as it has them.
    """
    try:
        found = {part: _digest(getattr(dataset, part, None) or ()) for part in _PARTS}
    except (OSError, AttributeError, ValueError):
        return None
    return {**{part: digest for part, digest in found.items() if digest}, "covers": COVERS}


def _digest(items: Sequence[Datum]) -> str | None:
    if not items:
        return None
    folder = os.path.commonpath([os.path.dirname(item.impath) for item in items])  # noqa: PTH120
    digest = hashlib.sha256()
    for item in items:
        # For a million files: making a Path of each takes longer than asking the system.
        name = _below(folder, item.impath)
        size = os.stat(item.impath).st_size  # noqa: PTH116
        digest.update(json.dumps([name, size, item.label, item.classname]).encode() + b"\n")
    return digest.hexdigest()


def _below(folder: str, path: str) -> str:
    plain = folder + os.sep
    # The system's own function is ten times as slow, and needed for unusual paths alone.
    name = path[len(plain) :] if path.startswith(plain) else os.path.relpath(path, folder)
    return name.replace(os.sep, "/")


def provenance(device: str, dataset: Any) -> dict[str, Any]:
    """Return what may move a number, for results.json: code, machine, data.

    Args:
        device: where the run takes place.
        dataset: see `data_hashes`.
    """
    name = platform.processor() or platform.machine()
    if device.startswith("cuda") and torch.cuda.is_available():
        name = torch.cuda.get_device_name(torch.device(device))
    return {
        **code_state(),
        "platform": platform.platform(),
        "device_name": name,
        "threads": torch.get_num_threads(),
        "data": data_hashes(dataset),
    }
