"""Download datasets into the layout that the loaders read.

The subfolder `.download` holds partial files, from which an interrupted download resumes, and
archives while they are unpacked. Files and folders get their final names atomically. An archive
that the user has put into the dataset's folder is unpacked, too, and stays there.
"""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dassl.data.datasets import Source, page_of
from safeio.archives import ArchiveError, Budget, TooLargeError, extract
from safeio.files import mkdir_if_missing, prepare_output_dir
from safeio.http_download import DownloadError, check, download
from safeio.locks import exclusive

# This address sends large files directly, without the page that warns of a missing virus scan.
DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
ATTEMPTS = 10  # connections of a download in one run


class LayoutError(ArchiveError):
    """An intact archive does not contain the expected files."""


@dataclass(frozen=True)
class Missing:
    """A file or folder that could not be downloaded.

    Attributes:
        source: the file or folder.
        folder: the dataset's folder.
        tried: addresses and files, and why each failed.
    """

    source: Source
    folder: Path
    tried: tuple[tuple[str, str], ...] = ()

    @property
    def place(self) -> Path:
        """The path where the dataset expects it."""
        return self.folder / self.source.path

    def advice(self) -> str:
        """Return instructions for the user."""
        if self.source.instructions:
            return self.source.instructions.replace("{folder}", str(self.folder))
        if not self.source.unpack:
            return f"put the file {self.place.name} into {self.place.parent}"
        names = dict.fromkeys(Address.of(url, self.source).name for url in self.source.urls)
        return f"put {' or '.join(names)} into {self.folder} and run this again to unpack it"


@dataclass(frozen=True)
class Address:
    """One of a source's addresses in its parts.

    Attributes:
        url: address of the download.
        page: address to open in a browser.
        name: name of the file.
        checksum: checksum of the file, if known.
    """

    url: str
    page: str
    name: str
    checksum: str

    @classmethod
    def of(cls, url: str, source: Source, drive: str = DRIVE) -> "Address":
        """Parse one of `Source.urls`; `drive` is the prefix of ids on Google Drive."""
        page = page_of(url)
        url, _, fragment = url.partition("#")
        checksum = fragment.replace("=", ":") or source.checksum
        scheme, _, rest = url.partition(":")
        if scheme == "gdrive":
            number, _, name = rest.partition("/")
            name = name or Path(source.path).name
            return cls(drive + number, page, name, checksum)
        return cls(url, page, unquote(urlsplit(url).path).split("/")[-1], checksum)


@dataclass(frozen=True)
class Fetcher:
    """Downloader of a dataset's files.

    Attributes:
        folder: the dataset's folder.
        keep_archives: move downloaded archives into the folder instead of removing them.
        drive: prefix of the ids on Google Drive.
        budget: limits on unpacked archives; None for the defaults of `safeio.archives`.
    """

    folder: Path
    keep_archives: bool = False
    drive: str = DRIVE
    budget: Budget | None = None

    @property
    def work(self) -> Path:
        """The folder of unfinished files."""
        return self.folder / ".download"

    def fetch(self, sources: Sequence[Source]) -> list[Missing]:
        """Download the missing ones of a dataset's sources, with a lock on the folder.

        Returns:
            The sources that could not be downloaded.

        Raises:
            UserError: the folder cannot be written to.
        """
        wanted = [source for source in sources if source.is_wanted(self.folder)]
        if not any(source.urls for source in wanted):
            return [Missing(source, self.folder) for source in wanted]
        prepare_output_dir(self.folder)
        waiting = f"Another run is downloading into {self.folder}: waiting for it"
        with exclusive(self.folder / ".download.lock", waiting):
            mkdir_if_missing(self.work)
            missing = [one for group in _by_archive(sources) for one in self._fetch_group(group)]
            for lock in self.work.glob(".*.lock"):
                lock.unlink()
            with suppress(OSError):  # it contains files to resume from
                self.work.rmdir()
        return missing

    def _fetch_group(self, group: Sequence[Source]) -> list[Missing]:
        """Download sources in the same archive from the first address that works."""
        wanted = [source for source in group if source.is_wanted(self.folder)]
        tried: list[tuple[str, str]] = []
        for address, is_local in self._origins(wanted):
            file = (self.folder if is_local else self.work) / address.name
            try:
                self._try(address, file, wanted, is_local)
                break
            except (DownloadError, ArchiveError, OSError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                tried.append((str(file) if is_local else address.page, reason))
                if isinstance(error, (TooLargeError, OSError)):
                    break  # a full disk: another address would not help
        return [
            Missing(source, self.folder, tuple(tried))
            for source in wanted
            if not source.is_there(self.folder)
        ]

    def _origins(self, wanted: Sequence[Source]) -> list[tuple[Address, bool]]:
        """Return (address, whether its file is local): first local archives, then downloads."""
        if not wanted:
            return []
        source = wanted[0]
        found = [Address.of(url, source, self.drive) for url in source.urls]
        local = [a for a in found if source.unpack and (self.folder / a.name).is_file()]
        return [*((address, True) for address in local), *((address, False) for address in found)]

    def _try(self, address: Address, file: Path, wanted: Sequence[Source], is_local: bool) -> None:
        source = wanted[0]
        if is_local:
            print(f"{file}: exists already")
            check(file, address.checksum, source.size)
        else:
            print(f"{self.folder / source.path}: from {address.page}")
            checksum, size = address.checksum, source.size
            download(address.url, file, checksum=checksum, size=size, attempts=ATTEMPTS)
        if not source.unpack:
            _move(file, self.folder / source.path)
            return
        try:
            self._unpack(file, wanted)
        except (TooLargeError, LayoutError):
            raise  # the archive is intact, so it is not removed
        except ArchiveError:
            if not is_local:
                file.unlink()
            raise
        if self.keep_archives and not is_local:
            file.replace(self.folder / file.name)
        elif not is_local:
            file.unlink()

    def _unpack(self, archive: Path, wanted: Sequence[Source]) -> None:
        tree = self.work / f"{archive.name}.unpacked"
        shutil.rmtree(tree, ignore_errors=True)  # left by a run that was killed
        try:
            extract(archive, tree, self.budget)
            absent = [source.path for source in wanted if not self._place(source, tree)]
        finally:
            shutil.rmtree(tree, ignore_errors=True)
        if absent:
            raise LayoutError(f"the archive {archive} does not contain {', '.join(absent)}")

    def _place(self, source: Source, tree: Path) -> bool:
        """Move a source from an unpacked archive to its final path; return whether it is in it."""
        for name in source.unpack:
            found = self._find(tree, name.split("/"))
            if found is not None:
                _move(found, self.folder / source.path)
                return True
        return False

    def _find(self, place: Path, names: Sequence[str]) -> Path | None:
        """Find nested names, each at any depth below the last one; unpack inner archives."""
        for name in names:
            if place.is_file():
                inner = place.with_name(f"{place.name}.unpacked")
                if not inner.exists():
                    extract(place, inner, self.budget)
                place = inner
            found = sorted(place.rglob(name), key=lambda path: (len(path.parts), path))
            if not found:
                return None
            place = found[0]  # the shallowest
        return place


def _by_archive(sources: Sequence[Source]) -> list[list[Source]]:
    """Group sources by archive, in order of first appearance."""
    groups: dict[tuple[str, ...], list[Source]] = {}
    for source in sources:
        key = source.urls if source.unpack else (source.path,)
        groups.setdefault(key, []).append(source)
    return list(groups.values())


def _move(found: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        place.rmdir()  # it is empty, since `Source.is_wanted` is true
    found.replace(place)
