"""OpenAI's weights by name: downloaded once, resumable, checked, and moved into place at the end.

A file stands under its final name only when its SHA-256 is the published one.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from .errors import WeightsError

DEFAULT_ROOT = Path("~/.cache/clip")
TIMEOUT_SECONDS = 60
CHUNK_BYTES = 1 << 20

_BASE = "https://openaipublic.azureedge.net/clip/models"
# name -> (SHA-256, file name); the address of each is made of both.
_FILES = {
    "RN50": (
        "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
        "RN50.pt",
    ),
    "RN101": (
        "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
        "RN101.pt",
    ),
    "RN50x4": (
        "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd",
        "RN50x4.pt",
    ),
    "RN50x16": (
        "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
        "RN50x16.pt",
    ),
    "RN50x64": (
        "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
        "RN50x64.pt",
    ),
    "ViT-B/32": (
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        "ViT-B-32.pt",
    ),
    "ViT-B/16": (
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        "ViT-B-16.pt",
    ),
    "ViT-L/14": (
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        "ViT-L-14.pt",
    ),
    "ViT-L/14@336px": (
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        "ViT-L-14-336px.pt",
    ),
}
MODELS = {name: f"{_BASE}/{digest}/{file}" for name, (digest, file) in _FILES.items()}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def fetch(url: str, root: str | Path | None = None) -> Path:
    """Download a file whose address holds its SHA-256, unless it is there already.

    The bytes are collected in `<name>.part`, from which an interrupted download goes on.

    Args:
        url: an address of the form `.../<sha256>/<file name>`.
        root: the folder of downloads; None for `~/.cache/clip`.

    Returns:
        The path of the checked file.

    Raises:
        WeightsError: the file cannot be had, or is not the published one.
    """
    expected, name = url.split("/")[-2:]
    folder = Path(root or DEFAULT_ROOT).expanduser()
    target = folder / name
    if target.exists():
        _check_existing(target, expected)
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(target.with_name(f".{name}.lock")):
            if not target.exists():  # another run may have fetched it while this one waited
                _download_and_check(url, target, expected)
    except (URLError, HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise WeightsError(
            f"{name} could not be downloaded from {url} ({reason}); run again to go on where it "
            f"stopped, or put the file at {target} by hand."
        ) from None
    return target


def _check_existing(target: Path, expected: str) -> None:
    found = sha256_of(target) if target.is_file() else "that of no file"
    if found != expected:
        raise WeightsError(
            f"{target} is not the published file (its SHA-256 is {found}, not {expected}); "
            "move it away and run again to download it."
        )


def _download_and_check(url: str, target: Path, expected: str) -> None:
    part = target.with_name(f"{target.name}.part")
    _download_into(part, url)
    found = sha256_of(part)
    if found != expected:
        part.unlink()
        raise WeightsError(
            f"{target.name} from {url} was refused because its SHA-256 is {found}, "
            f"not {expected}; run again, or put the right file at {target} by hand."
        )
    part.replace(target)


def _download_into(part: Path, url: str) -> None:
    """Fetch what `part` still lacks."""
    done = part.stat().st_size if part.exists() else 0
    try:
        response = _open(url, done)
    except HTTPError as error:
        error.close()
        if not (error.code == 416 and done):
            raise
        # Nothing lies behind what is there: it is whole (the hash will tell) or of another file.
        return
    with response:
        if response.status != 206:
            done = 0  # the server ignores ranges and sends everything again
        length = response.headers.get("Content-Length")
        total = done + int(length) if length is not None else None
        _copy(response, part, done, total)


def _open(url: str, done: int) -> Any:
    headers = {"Range": f"bytes={done}-"} if done else {}
    return urlopen(Request(url, headers=headers), timeout=TIMEOUT_SECONDS)


def _copy(response: Any, part: Path, done: int, total: int | None) -> None:
    bar = tqdm(
        total=total,
        initial=done,
        unit="B",
        unit_scale=True,
        desc=part.stem,
        disable=None,  # no bar where stderr is no terminal
    )
    with bar, part.open("ab" if done else "wb") as file:
        for chunk in _chunks(response):
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


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Let one process at a time download a file; the others wait."""
    try:
        import fcntl
    except ImportError:  # Windows has no fcntl; two runs at once are rare enough there
        yield
        return
    # The lock ends with the file object. The empty file stays: removing it would let a third run
    # lock a new one while the second still holds the old.
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
