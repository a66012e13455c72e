"""Download one file from one URL: resumable, verified, and by one process at a time.

The file gets its final name only after it is complete and verified.
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
_HEADERS = {"User-Agent": "nemesis-prompts"}  # some hosts refuse urllib's default
_PAGE = re.compile(rb"\s*<(!doctype\s+html|html)", re.IGNORECASE)


class DownloadError(UserError):
    """The download failed; the message is only the reason, for the caller's sentence."""


class RefusedError(DownloadError):
    """The downloaded file is not the expected one and was removed."""


def download(
    url: str, target: Path, *, checksum: str = "", size: int | None = None, attempts: int = 1
) -> None:
    """Download a file unless `target` exists.

    The bytes go to a `.part` file next to it, from which an interrupted download resumes, also in a
    later run. With a checksum, any URL may resume it; otherwise each URL has its own `.part` file.
    A web page in place of the file is refused.

    Args:
        url: http, https or file.
        target: path of the file; its folders are created.
        checksum: `sha256:<hex>`, `md5:<hex>` or empty.
        size: in bytes, if known.
        attempts: how many times to connect if the connection is cut.

    Raises:
        RefusedError: the downloaded file is not the expected one.
        DownloadError: the download failed; the `.part` file remains.
    """
    suffix = "" if checksum else f".{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    part = target.with_name(f"{target.name}{suffix}.part")
    try:
        waiting = f"Another run is downloading {target}: waiting for it"
        with exclusive(target.with_name(f".{target.name}.lock"), waiting):
            if not target.exists():  # another run may have downloaded it meanwhile
                try:
                    _download_with_retries(part, url, target.name, attempts)
                    check(part, checksum, size)
                except RefusedError:
                    part.unlink()
                    raise
                part.replace(target)
    except (URLError, HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise DownloadError(str(reason)) from None


def check(path: Path, checksum: str = "", size: int | None = None) -> None:
    """Compare a file with its published checksum and size.

    Raises:
        RefusedError: one of them differs.
    """
    actual = path.stat().st_size
    if size is not None and actual != size:
        raise RefusedError(f"it has {actual} bytes, not {size}")
    algorithm, _, expected = checksum.partition(":")
    if expected:
        digest = file_digest(path, algorithm)
        if digest != expected:
            name = "SHA-256" if algorithm == "sha256" else algorithm.upper()
            raise RefusedError(f"its {name} is {digest}, not {expected}")


def _download_with_retries(part: Path, url: str, name: str, attempts: int) -> None:
    for left in reversed(range(attempts)):
        try:
            _download_into(part, url, name)
            return
        except (HTTPException, ConnectionError, TimeoutError):
            if not left:
                raise


def _download_into(part: Path, url: str, name: str) -> None:
    """Download the bytes that are missing in `part`."""
    done = part.stat().st_size if part.exists() else 0
    try:
        ranges = {"Range": f"bytes={done}-"} if done else {}
        request = Request(url, headers=_HEADERS | ranges)
        response = urlopen(request, timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        if not (error.code == 416 and done):
            raise
        # There are no further bytes: the part is complete, or belongs to another file.
        length = error.headers.get("Content-Range", "").removeprefix("bytes */")
        if length.isdecimal() and int(length) != done:
            raise RefusedError(f"{done} bytes were downloaded of a file of {length}") from None
        return
    with response:
        if response.status != 206:
            done = 0  # the server ignores ranges and sends everything again
        length = response.headers.get("Content-Length")
        total = done + int(length) if length is not None else None
        _copy(response, part, name, done, total)


def _copy(response: Any, part: Path, name: str, done: int, total: int | None) -> None:
    # No bar if stderr is not a terminal.
    bar = tqdm(total=total, initial=done, unit="B", unit_scale=True, desc=name, disable=None)
    with bar, part.open("ab" if done else "wb") as file:
        for chunk in _chunks(response):
            if not done and _PAGE.match(chunk):
                raise RefusedError("the server sent a web page instead of the file")
            file.write(chunk)
            done += len(chunk)
            bar.update(len(chunk))
    if total is not None and done < total:
        raise ConnectionError(f"the connection was cut after {done} of {total} bytes")


def _chunks(response: Any) -> Iterator[bytes]:
    """Yield the data until it ends or the connection is cut."""
    try:
        while chunk := response.read(CHUNK_BYTES):
            yield chunk
    except IncompleteRead as cut:  # only some versions of Python raise it
        yield cut.partial
