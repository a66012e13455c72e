"""Small disks, and folders that cannot be written to."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def _mounted(*arguments: str) -> Iterator[None]:
    """Mount the last argument; skips the test if that is not allowed."""
    try:
        mounted = subprocess.run(["mount", *arguments], capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("mounting needs more rights")
    try:
        yield
    finally:
        # Lazily: a failing test must not leave the mount because it has a file open.
        subprocess.run(["umount", "--lazy", arguments[-1]], check=True)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system of so many bytes ("32k")."""
    folder.mkdir(parents=True, exist_ok=True)
    with _mounted("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)):
        yield folder


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """Mount a folder read-only over itself; skips if that is not allowed."""
    with _mounted("--bind", str(folder), str(folder)):
        remount = ["mount", "-o", "remount,ro,bind", str(folder)]
        if subprocess.run(remount, capture_output=True).returncode:
            pytest.skip("mounting read-only needs more rights")
        yield folder
