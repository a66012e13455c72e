"""Unpack archives from untrusted sources into one folder, within bounds.

An archive is refused, whatever the version of Python, when

- a name in it is absolute, climbs with `..`, or has a backslash or a drive letter;
- it holds a device, a pipe or a socket, or is encrypted;
- a link in it leads out of it or to nothing (a link to a file of it becomes that file);
- unpacked it would take more than the free disk space less 256 MiB, more than 100 times its own
  size plus 64 MiB, or more than 5 million entries;
- it is damaged or cut off.

tarfile's `data_filter` is no replacement: it strips the slash of an absolute name, accepts
backslashes, makes links, and bounds no sizes. What a refused archive has left in the folder stays
there: unpack into a temporary one.
"""

import bz2
import errno
import gzip
import lzma
import os
import posixpath
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from tqdm import tqdm

from .errors import UserError

CHUNK_BYTES = 1 << 20
SPARE_DISK_BYTES = 256 << 20
MAX_RATIO = 100
SMALL_BYTES = 64 << 20
MAX_ENTRIES = 5_000_000

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # a zip's compression that zipfile does not know
    UnicodeError,
    IndexError,  # a zip's entry without a name
)
_UNSAFE = re.compile(r"^/|^[A-Za-z]:|\\|\0|(^|/)\.\.(/|$)")
_OPENERS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}


class ArchiveError(UserError):
    """An archive that cannot be unpacked; the text is a clause that begins with "it"."""


class TooLargeError(ArchiveError):
    """An archive that takes more space than it may."""


@dataclass
class Budget:
    """Bytes that may still be written, and why no more."""

    left: int
    reason: str

    @classmethod
    def of(cls, archive: Path, folder: Path) -> "Budget":
        """What an archive may take in a folder: see the top of this file."""
        free = max(shutil.disk_usage(folder).free - SPARE_DISK_BYTES, 0)
        bomb = MAX_RATIO * archive.stat().st_size + SMALL_BYTES
        if free <= bomb:
            return cls(free, f"the {free:,} bytes that are free on the disk")
        return cls(bomb, f"{MAX_RATIO} times its own size")

    def spend(self, count: int) -> None:
        """Take bytes from the budget.

        Raises:
            TooLargeError: there are not so many left.
        """
        self.left -= count
        if count < 0 or self.left < 0:  # a header may claim a negative size
            raise TooLargeError(f"it takes more than {self.reason} when it is unpacked")


class _Entry(NamedTuple):
    """A member of an archive of any kind: `mode` is a file type of `stat`."""

    name: str
    mode: int
    size: int
    open: Callable[[], IO[bytes] | None]
    link: str = ""  # its target, from the archive's root


class _Stream:
    """Reads a decompressed tar, counts what comes, and notices its end."""

    def __init__(self, file: Any, budget: Budget) -> None:
        self._file = file
        self._budget = budget
        self.ended = False

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.ended = self.ended or not data
        self._budget.spend(len(data))
        return data


def extract(archive: Path, folder: Path, budget: Budget | None = None) -> None:
    """Unpack a zip, or a tar that is plain or compressed with gzip, bzip2 or xz.

    Its content says which it is. Permissions and times are not restored.

    Args:
        archive: the file.
        folder: where to; made if missing.
        budget: bounds other than those at the top of this file.

    Raises:
        ArchiveError: it is no archive, damaged or refused.
        OSError: the disk cannot take it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    budget = budget or Budget.of(archive, folder)
    size, title = archive.stat().st_size, f"unpacking {archive.name}"
    with (
        archive.open("rb") as raw,
        tqdm.wrapattr(raw, "read", total=size, desc=title, disable=None) as file,
    ):
        try:
            _write(_entries(file, budget), folder, budget)
        except _DAMAGE as error:
            raise ArchiveError(f"it is damaged or cut off ({error})") from None
        except OSError as error:
            if error.errno not in (None, errno.EINVAL):
                raise
            # gzip and bz2 say so of damaged data, the system of a place that no file has
            raise ArchiveError(f"it is damaged ({error})") from None


def _entries(file: Any, budget: Budget) -> Iterator[_Entry]:
    start = file.read(512)
    file.seek(0)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_entries(file)
    for magic, opener in _OPENERS.items():
        if start.startswith(magic):
            return _tar_entries(opener(file), budget)
    if start[257:262] == b"ustar":
        return _tar_entries(file, budget)
    raise ArchiveError("it is no zip or tar archive")


def _zip_entries(file: Any) -> Iterator[_Entry]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.flag_bits & 1:
                raise ArchiveError("it is encrypted")
            mode = stat.S_IFMT(info.external_attr >> 16) or stat.S_IFREG
            if info.is_dir():
                mode = stat.S_IFDIR
            entry = _Entry(info.filename, mode, info.file_size, partial(archive.open, info))
            if mode == stat.S_IFLNK:
                with archive.open(info) as target:
                    entry = entry._replace(link=_from_root(entry.name, target.read(4096).decode()))
            yield entry


def _tar_entries(file: Any, budget: Budget) -> Iterator[_Entry]:
    # The stream has a budget of its own: it also bounds headers, which are read at once.
    stream = _Stream(file, Budget(budget.left, budget.reason))
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as archive:
        for info in archive:
            mode, link = 0, ""
            if info.isdir():
                mode = stat.S_IFDIR
            elif info.isreg():
                mode = stat.S_IFREG
            elif info.issym() or info.islnk():
                mode = stat.S_IFLNK
                link = info.linkname if info.islnk() else _from_root(info.name, info.linkname)
            yield _Entry(info.name, mode, info.size, partial(archive.extractfile, info), link)
    # A tar ends with a block of zeros; without one it was cut where a member ends.
    if stream.ended:
        raise EOFError("no end mark")
    while stream.read(CHUNK_BYTES):  # the compressed data's own checksum stands at its end
        pass


def _from_root(name: str, target: str) -> str:
    """A symbolic link's target from the archive's root; an unsafe one stays unsafe."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name.rstrip("/")), target))


def _write(entries: Iterator[_Entry], folder: Path, budget: Budget) -> None:
    links: dict[Path, Path] = {}
    for count, entry in enumerate(entries, start=1):
        if count > MAX_ENTRIES:
            raise TooLargeError(f"it has more than {MAX_ENTRIES:,} entries")
        path = folder / _safe(entry.name, "entry")
        if entry.mode == stat.S_IFDIR:
            path.mkdir(parents=True, exist_ok=True)
        elif entry.mode == stat.S_IFLNK:
            links[path] = folder / _safe(entry.link, f"link {entry.name!r} to")
        elif entry.mode == stat.S_IFREG:
            _write_file(entry, path, budget)
        else:
            raise ArchiveError(f"it is refused because its entry {entry.name!r} is a device")
    # Only now, and never as links: nothing can be written through them, or moved away from
    # under them.
    _copy_targets(links, budget)


def _safe(name: str, what: str) -> str:
    if _UNSAFE.search(name):
        raise ArchiveError(f"it is refused because its {what} {name!r} leads out of its folder")
    return name


def _write_file(entry: _Entry, path: Path, budget: Budget) -> None:
    budget.spend(entry.size)  # before a byte is written, and no more bytes than these come
    path.parent.mkdir(parents=True, exist_ok=True)
    source = entry.open()
    if source is None:
        raise EOFError(f"{entry.name!r} has no content")
    with source, path.open("wb") as target:
        shutil.copyfileobj(source, target, CHUNK_BYTES)


def _copy_targets(links: dict[Path, Path], budget: Budget) -> None:
    """Make links to files, and to links to files, those files."""
    while links:
        ready = [path for path, target in links.items() if target.is_file()]
        if not ready:
            path, target = next(iter(links.items()))
            raise ArchiveError(
                f"it is refused because its link {path.name!r} leads to {target.name!r}, "
                "which is no file of it"
            )
        for path in ready:
            target = links.pop(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            try:
                os.link(target, path)
            except OSError:  # a file system without hard links
                budget.spend(target.stat().st_size)
                shutil.copyfile(target, path)
