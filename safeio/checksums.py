"""Files that say themselves whether they are whole: JSON and checkpoints with a checksum inside.

The checksum of a JSON object is one more entry, `"checksum": "sha256:..."`, over all others in a
canonical form: a file that is indented anew stays valid, one in which a digit has changed does not.
A file without one, as older versions wrote, is taken as it is.
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

# A file's checksum stands behind it: in a zip archive's comment, which its readers pass over.
_TRAILER = re.compile(rb"sha256:([0-9a-f]{64})")
TRAILER_BYTES = 71
_ZIP, _ZIP_END, _ZIP_END_BYTES = b"PK\x03\x04", b"PK\x05\x06", 22


class DamagedFile(UserError):
    """A file that is not what was written; the message names it."""


def with_checksum(content: Mapping[str, Any], kind: str = "sha256") -> dict[str, Any]:
    """Add the checksum to what a JSON file shall hold.

    Args:
        content: plain values.
        kind: sha256, or crc32 for the lines of a growing file.
    """
    plain = {key: value for key, value in content.items() if key != CHECKSUM}
    return {**plain, CHECKSUM: _checksum(plain, kind)}


def _checksum(content: Mapping[str, Any], kind: str) -> str:
    # As a reader will see it: keys are strings and tuples lists.
    text = json.dumps(json.loads(json.dumps(content)), sort_keys=True, separators=(",", ":"))
    return f"{kind}:{_KINDS[kind](text.encode())}"


def without_checksum(content: Any) -> Any:
    """Return what `with_checksum` was given; what never had a checksum, as it is.

    Raises:
        ValueError: it is not what was sealed.
    """
    if not isinstance(content, dict):
        return content
    # The value says that it is a checksum, too: a damaged key does not make the file an older one.
    seals = {key: value for key, value in content.items() if _is_checksum(key, value)}
    if not seals:
        return content
    plain = {key: value for key, value in content.items() if key not in seals}
    kind = str(seals.get(CHECKSUM)).partition(":")[0]
    if len(seals) > 1 or kind not in _KINDS or seals[CHECKSUM] != _checksum(plain, kind):
        raise ValueError("it does not match its checksum")
    return plain


def _is_checksum(key: str, value: Any) -> bool:
    return key == CHECKSUM or (isinstance(value, str) and value.startswith(_PREFIXES))


def write_json_with_checksum(content: Mapping[str, Any], path: PathLike) -> None:
    """Write a JSON file with a checksum inside, atomically; see `write_json`."""
    write_json(with_checksum(content), path)


def read_verified_json(path: PathLike, limit: int = LARGEST) -> Any:
    """Read a JSON file and check it.

    Args:
        path: the file.
        limit: bytes that it may have.

    Raises:
        DamagedFile: it is no JSON, or not what was written.
        OSError: it cannot be read.
    """
    try:
        return without_checksum(parse_json(read_bounded(Path(path), limit)))
    except ValueError as error:
        why = str(error) if type(error) is ValueError else "it is no JSON"
        raise DamagedFile(f"{path} is damaged: {why}") from error


def add_archive_checksum(archive: bytearray) -> None:
    """Append the SHA-256 to a zip archive without a comment, which stays a valid archive.

    Args:
        archive: its bytes, changed in place.
    """
    archive[-2:] = TRAILER_BYTES.to_bytes(2, "little")
    archive += b"sha256:" + hashlib.sha256(archive).hexdigest().encode()


def archive_fault(path: PathLike) -> str:
    """Describe what is wrong with an archive whose checksum does not match; "" if nothing is known.

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
                right = digest == trailer.group(1).decode()
                return "" if right else "it does not match its checksum"
        file.seek(0)
        if file.read(len(_ZIP)) != _ZIP:
            return ""  # the format before PyTorch 1.6, or none at all
        # An older archive has nothing behind its end; another was cut off, or spoilt at its end.
        file.seek(max(0, size - _ZIP_END_BYTES))
        end = file.read()
        whole = end.startswith(_ZIP_END) and end.endswith(b"\0\0")
        return "" if whole else "its end is missing or spoilt"


def file_digest(path: PathLike, algorithm: str = "sha256", size: int | None = None) -> str:
    """Hash of a file's bytes, or of its first ones, in hexadecimal.

    Args:
        path: the file.
        algorithm: a name of `hashlib`.
        size: how many bytes count; None for all.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with Path(path).open("rb") as file:
        left = file.seek(0, 2) if size is None else size
        file.seek(0)
        while block := file.read(min(left, 1 << 20)):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()
