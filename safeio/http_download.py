"""One file from one address: resumable, checked, and by one process at a time.

A file stands under its final name only when it is whole and has passed its checks.
"""

import hashlib
import re
from collections.abc import Iterator
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from .checksums import file_digest
from .errors import UserError
from .locks import exclusive

TIMEOUT_SECONDS = 60
CHUNK_BYTES = 1 << 20
_HEADERS = {"User-Agent": "nemesis-prompts"}  # some hosts refuse urllib's own name
_PAGE = re.compile(rb"\s*<(!doctype\s+html|html)", re.IGNORECASE)


class DownloadError(UserError):
    """A file could not be had; the text is the reason alone, for a caller's sentence."""


class RefusedError(DownloadError):
    """A file came, but it is not the wanted one; it was removed."""


def download(
    url: str, target: Path, *, checksum: str = "", size: int | None = None, attempts: int = 1
) -> None:
    """Fetch a file unless `target` is there already.

    The bytes are collected in a `.part` file beside it, from which an interrupted download
    resumes, also in a later run. With a checksum, any address may resume it; otherwise each address
    has a part of its own. A web page instead of a file is refused.

    Args:
        url: http, https or file.
        target: where the file goes; folders are made.
        checksum: `sha256:<hex>` or `md5:<hex>`, or nothing.
        size: in bytes, where it is known.
        attempts: how often a connection that is cut is opened again.

    Raises:
        RefusedError: what came is not the wanted file.
        DownloadError: it could not be had; what is there of it is kept.
    """
    own = "" if checksum else f".{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    part = target.with_name(f"{target.name}{own}.part")
    try:
        waiting = f"Another run is downloading {target}: waiting for it"
        with exclusive(target.with_name(f".{target.name}.lock"), waiting):
            if not target.exists():  # another run may have fetched it while this one waited
                try:
                    _collect(part, url, target.name, attempts)
                    check(part, checksum, size)
                except RefusedError:
                    part.unlink()
                    raise
                part.replace(target)
    except (URLError, HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise DownloadError(str(reason)) from None


def check(path: Path, checksum: str = "", size: int | None = None) -> None:
    """Compare a file with what is published about it.

    Raises:
        RefusedError: it differs.
    """
    found = path.stat().st_size
    if size is not None and found != size:
        raise RefusedError(f"it has {found} bytes, not {size}")
    algorithm, _, expected = checksum.partition(":")
    if expected:
        digest = file_digest(path, algorithm)
        if digest != expected:
            name = {"sha256": "SHA-256"}.get(algorithm, algorithm.upper())
            raise RefusedError(f"its {name} is {digest}, not {expected}")


def _collect(part: Path, url: str, name: str, attempts: int) -> None:
    for left in reversed(range(attempts)):
        try:
            _download_into(part, url, name)
            return
        except (HTTPException, ConnectionError, TimeoutError):
            if not left:
                raise


def _download_into(part: Path, url: str, name: str) -> None:
    """Fetch what `part` still lacks."""
    done = part.stat().st_size if part.exists() else 0
    try:
        response = _open(url, done)
    except HTTPError as error:
        error.close()
        if not (error.code == 416 and done):
            raise
        # Nothing lies behind what is there: it is whole, or of another file.
        length = error.headers.get("Content-Range", "").removeprefix("bytes */")
        if length.isdecimal() and int(length) != done:
            raise RefusedError(f"{done} bytes were there of a file of {length}") from None
        return
    with response:
        if response.status != 206:
            done = 0  # the server ignores ranges and sends everything again
        length = response.headers.get("Content-Length")
        total = done + int(length) if length is not None else None
        _copy(response, part, name, done, total)


def _open(url: str, done: int) -> Any:
    ranges = {"Range": f"bytes={done}-"} if done else {}
    return urlopen(Request(url, headers=_HEADERS | ranges), timeout=TIMEOUT_SECONDS)


def _copy(response: Any, part: Path, name: str, done: int, total: int | None) -> None:
    bar = tqdm(
        total=total,
        initial=done,
        unit="B",
        unit_scale=True,
        desc=name,
        disable=None,  # no bar where stderr is no terminal
    )
    with bar, part.open("ab" if done else "wb") as file:
        for chunk in _chunks(response):
            if not done and _PAGE.match(chunk):
                raise RefusedError("a web page came instead of the file")
            file.write(chunk)
            done += len(chunk)
            bar.update(len(chunk))
    if total is not None and done < total:
        raise ConnectionError(f"the connection was cut after {done} of {total} bytes")


def _chunks(response: Any) -> Iterator[bytes]:
    """What comes until the end, or until the connection is cut."""
    try:
        while chunk := response.read(CHUNK_BYTES):
            yield chunk
    except IncompleteRead as cut:  # only some versions of Python say so by themselves
        yield cut.partial
