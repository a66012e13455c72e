"""Joins untrusted relative paths to a folder that they must not leave."""

import functools
import os
import re
from pathlib import Path

from safeio.errors import UserError
from safeio.untrusted import one_line

_SEPARATOR = os.sep
_DRIVE = re.compile("[A-Za-z]:/" if _SEPARATOR == "/" else "[^/]*:")
LONGEST_PATH = 4096


def safe_join(directory: Path, relative: str) -> str:
    r"""Join a path of a split file or a CSV to its folder.

    A backslash separates folders, as in lists from Windows, unless it is part of the name of an
    existing file. An absolute path is accepted if it is in the folder.

    Raises:
        UserError: the path leads out of the folder, or is not a valid path.
    """
    if not relative or "\0" in relative or len(relative) > LONGEST_PATH:
        raise UserError(f'The path "{one_line(relative)}" is not a valid file path')
    # Strings rather than Path objects: a split of ImageNet has over a million paths.
    path = relative if _SEPARATOR == "/" else relative.replace("\\", "/")
    if "\\" in path and not _exists_unchanged(directory, path):
        path = path.replace("\\", "/")
    if path.startswith("/") or _DRIVE.match(path):
        path = _below(directory, path)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts and not os.path.normpath(path).startswith(".."):
        raise UserError(
            f'The path "{one_line(relative)}" contains ".." and is refused; write it without ".."'
        )
    if not parts or path.startswith("/") or ".." in parts:
        raise UserError(f'The path "{one_line(relative)}" leads out of {directory} and is refused')
    return _SEPARATOR.join([str(directory), *parts])


def _exists_unchanged(directory: Path, path: str) -> bool:
    whole = directory / path
    return ".." not in path.split("/") and (whole.exists() or whole.is_symlink())


def _below(directory: Path, path: str) -> str:
    """Make an absolute path relative to `directory`, if it is in it; else return it absolute."""
    for folder in (directory, _real(directory)):
        prefix = folder.as_posix().rstrip("/") + "/"
        if path.startswith(prefix):
            return path[len(prefix) :]
    # "C:" may be the name of a folder, except on Windows.
    named = _DRIVE.match(path) and _SEPARATOR == "/" and _exists_unchanged(directory, path)
    return path if named or path.startswith("/") else f"/{path}"


@functools.lru_cache(maxsize=64)
def _real(directory: Path) -> Path:
    return directory.resolve()
