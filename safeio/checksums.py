"""Checksums inside JSON files and checkpoints, with which a reader detects damage.

The checksum of a JSON object is one more entry, `"checksum": "sha256:..."`, over all others in a
canonical form: indenting the file anew keeps it valid, changing a digit does not. Files without a
checksum, which older versions wrote, are accepted.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .errors import UserError
from .files import PathLike, write_json
from .untrusted import parse_json, read_bounded

CHECKSUM = "checksum"
LARGEST = 1 << 28  # bytes of a JSON file
_KINDS: dict[str, Callable[[bytes], str]] = {
    "sha256": lambda data: hashlib.sha256(data).hexdigest(),
    "crc32": lambda data: f"{zlib.crc32(data):08x}",
}
_PREFIXES = tuple(f"{kind}:" for kind in _KINDS)

# A checkpoint's checksum is the comment at the end of its zip archive, which readers ignore.
_TRAILER = re.compile(rb"sha256:([0-9a-f]{64})")
TRAILER_BYTES = 71
_ZIP, _ZIP_END, _ZIP_END_BYTES = b"PK\x03\x04", b"PK\x05\x06", 22


class DamagedFile(UserError):
    """The content of a file is not what was written; the message names the file."""


def with_checksum(content: Mapping[str, Any], kind: str = "sha256") -> dict[str, Any]:
    """Return the content of a JSON file with its checksum, crc32 for lines of a growing file."""
    body = {key: value for key, value in content.items() if key != CHECKSUM}
    return {**body, CHECKSUM: _checksum(body, kind)}


def _checksum(content: Mapping[str, Any], kind: str) -> str:
    # Hash what a reader gets back: string keys, and lists in place of tuples.
    text = json.dumps(json.loads(json.dumps(content)), sort_keys=True, separators=(",", ":"))
    return f"{kind}:{_KINDS[kind](text.encode())}"


def without_checksum(content: Any) -> Any:
    """Verify and remove the checksum; return content that has none unchanged.

    Raises:
        ValueError: the content does not match its checksum.
    """
    if not isinstance(content, dict):
        return content
    # Values are recognised, too: a damaged key must not make the file look like an older one.
    found = {key: value for key, value in content.items() if _is_checksum(key, value)}
    if not found:
        return content
    body = {key: value for key, value in content.items() if key not in found}
    kind = str(found.get(CHECKSUM)).partition(":")[0]
    if len(found) > 1 or kind not in _KINDS or found[CHECKSUM] != _checksum(body, kind):
        raise ValueError("it does not match its checksum")
    return body


def _is_checksum(key: str, value: Any) -> bool:
    return key == CHECKSUM or (isinstance(value, str) and value.startswith(_PREFIXES))


def write_json_with_checksum(content: Mapping[str, Any], path: PathLike) -> None:
    """Write a JSON file with a checksum inside, atomically; see `write_json`."""
    write_json(with_checksum(content), path)


def read_verified_json(path: PathLike, limit: int = LARGEST) -> Any:
    """Read a JSON file of at most `limit` bytes and verify its checksum, if it has one.

    Raises:
        DamagedFile: the file is not JSON, is too large, or does not match its checksum.
        OSError: the file cannot be read.
    """
    try:
        return without_checksum(parse_json(read_bounded(Path(path), limit)))
    except ValueError as error:
        why = str(error) if type(error) is ValueError else "it is not JSON"
        raise DamagedFile(f"{path} is damaged: {why}") from error


def add_archive_checksum(archive: bytearray) -> None:
    """Append to a zip archive's bytes its SHA-256 as a comment; it must have none before."""
    archive[-2:] = TRAILER_BYTES.to_bytes(2, "little")
    archive += b"sha256:" + hashlib.sha256(archive).hexdigest().encode()


def archive_fault(path: PathLike) -> str:
    """Describe the damage of a checkpoint's zip archive; return "" if none is found.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        if size >= TRAILER_BYTES:
            file.seek(size - TRAILER_BYTES)
            trailer = _TRAILER.fullmatch(file.read())
            if trailer:
                digest = file_digest(path, size=size - TRAILER_BYTES)
                matches = digest == trailer.group(1).decode()
                return "" if matches else "it does not match its checksum"
        file.seek(0)
        if file.read(len(_ZIP)) != _ZIP:
            return ""  # PyTorch's format before 1.6, or not a checkpoint
        # Older versions wrote no checksum: then the archive must end with an empty comment.
        file.seek(max(0, size - _ZIP_END_BYTES))
        end = file.read()
        whole = end.startswith(_ZIP_END) and end.endswith(b"\0\0")
        return "" if whole else "its end is missing or damaged"


def file_digest(path: PathLike, algorithm: str = "sha256", size: int | None = None) -> str:
    """Return the hexadecimal hash of a file, or of its first `size` bytes.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with Path(path).open("rb") as file:
        left = file.seek(0, 2) if size is None else size
        file.seek(0)
        while block := file.read(min(left, 1 << 20)):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()
