"""Unpack archives from untrusted sources into one folder, within bounds.

An archive is refused, whatever the version of Python, when

- a name in it is absolute, climbs with `..`, or has a backslash or a drive letter;
- it contains a device, a pipe or a socket, or is encrypted;
- a link in it points to anything but a file in it (a valid link becomes a copy of that file);
- its content needs more than the free disk space less 256 MiB, more than 100 times its own size
  plus 64 MiB, or more than 5 million entries;
- it is damaged or truncated.

tarfile's `data_filter` is no replacement: it strips the slash of an absolute name, accepts
backslashes, makes links, and bounds no sizes. Files that were unpacked before a refusal stay in the
folder: unpack into a temporary one.
"""

import bz2
import errno
import gzip
import lzma
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
    NotImplementedError,  # a compression method that zipfile does not support
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
    """The archive cannot be unpacked; the message is a clause that begins with "it"."""


class TooLargeError(ArchiveError):
    """The content of the archive exceeds its `Budget`."""


@dataclass
class Budget:
    """Number of bytes that may still be written, and what limits it."""

    left: int
    reason: str

    @classmethod
    def of(cls, archive: Path, folder: Path) -> "Budget":
        """Return the default budget of an archive in a folder; see the top of this file."""
        free = max(shutil.disk_usage(folder).free - SPARE_DISK_BYTES, 0)
        bomb = MAX_RATIO * archive.stat().st_size + SMALL_BYTES
        if free <= bomb:
            return cls(free, f"the {free:,} bytes that are free on the disk")
        return cls(bomb, f"{MAX_RATIO} times its own size")

    def spend(self, count: int) -> None:
        """Subtract bytes from the budget.

        Raises:
            TooLargeError: fewer bytes are left.
        """
        self.left -= count
        if count < 0 or self.left < 0:  # a header may claim a negative size
            raise TooLargeError(f"it takes more than {self.reason} when it is unpacked")


class _Entry(NamedTuple):
    """A member of a zip or tar archive; `mode` is one of the file types of `stat`."""

    name: str
    mode: int
    size: int
    open: Callable[[], Any]  # returns the opened content of a file
    link: str = ""  # the target, relative to the archive's root


@dataclass
class _Stream:
    """Reader of a decompressed tar that spends a budget and records the end of the data."""

    file: Any
    budget: Budget
    ended: bool = False

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.ended = self.ended or not data
        self.budget.spend(len(data))
        return data


def extract(archive: Path, folder: Path, budget: Budget | None = None) -> None:
    """Unpack a zip, or a tar that is uncompressed or compressed with gzip, bzip2 or xz.

    The content decides, not the suffix. Permissions and times are not restored.

    Args:
        archive: the file.
        folder: created if missing.
        budget: limits other than those at the top of this file.

    Raises:
        ArchiveError: the file is not an archive, is damaged, or is refused.
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
            raise ArchiveError(f"it is damaged or truncated ({error})") from None
        except OSError as error:
            if error.errno not in (None, errno.EINVAL):
                raise
            # gzip and bz2 raise it for damaged data, the system for an invalid seek position
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
    raise ArchiveError("it is not a zip or tar archive")


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
    # A second budget for the stream also bounds the headers, which tarfile reads into memory.
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
    # A tar ends with a block of zeros; without one it was truncated between two members.
    if stream.ended:
        raise EOFError("no end mark")
    while stream.read(CHUNK_BYTES):  # the decompressor verifies its checksum at the end
        pass


def _from_root(name: str, target: str) -> str:
    """Return a symbolic link's target from the archive's root; unsafe targets stay unsafe."""
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
            budget.spend(entry.size)  # before writing; the reader returns no more bytes than this
            path.parent.mkdir(parents=True, exist_ok=True)
            with entry.open() as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, CHUNK_BYTES)
        else:
            raise ArchiveError(f"it is refused because its entry {entry.name!r} is a device")
    # Last, and never as links, so that no entry can be written through a link.
    _copy_targets(links, budget)


def _safe(name: str, what: str) -> str:
    if _UNSAFE.search(name):
        raise ArchiveError(f"it is refused because its {what} {name!r} leads out of its folder")
    return name


def _copy_targets(links: dict[Path, Path], budget: Budget) -> None:
    """Replace links by the files that they point to, directly or through other links."""
    while links:
        ready = [path for path, target in links.items() if target.is_file()]
        if not ready:
            path, target = next(iter(links.items()))
            raise ArchiveError(
                f"it is refused because its link {path.name!r} leads to {target.name!r}, "
                "which is not a file in it"
            )
        for path in ready:
            target = links.pop(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            budget.spend(target.stat().st_size)
            shutil.copyfile(target, path)
