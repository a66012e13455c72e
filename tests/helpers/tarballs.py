"""Small archives, valid and malicious."""

import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def member(name: str, content: bytes = b"", **attributes: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A member of a tar; attributes are those of `tarfile.TarInfo`."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, content


def make_tar(path: Path, members: Iterable[tuple[tarfile.TarInfo, bytes]], mode: Any = "w") -> Path:
    """Write a tar; `mode` as for `tarfile.open`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def make_zip(
    path: Path, files: Mapping[str, bytes], special: Iterable[tuple[zipfile.ZipInfo, bytes]] = ()
) -> Path:
    """Write a compressed zip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        for info, content in special:
            archive.writestr(info, content)
    return path
