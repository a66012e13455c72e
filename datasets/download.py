"""Bring a dataset's folder into the layout that its loader reads.

Everything is collected in `.download` within the folder: parts of files, from which an interrupted
download resumes, and archives while they are unpacked. A file or folder appears under its final
name at once and whole. An archive that somebody put into the folder by hand is unpacked, too, and
stays where it is.
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

# Sends files of any size directly, without the page that warns that they were not scanned.
DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
ATTEMPTS = 10  # a connection may be cut this often in one run


class LayoutError(ArchiveError):
    """An archive that is sound, but lacks what is looked for."""


@dataclass(frozen=True)
class Missing:
    """What could not be had.

    Attributes:
        source: the file or folder.
        folder: the dataset's.
        tried: addresses and files with the reason why each failed.
    """

    source: Source
    folder: Path
    tried: tuple[tuple[str, str], ...] = ()

    @property
    def place(self) -> Path:
        """Where it has to be."""
        return self.folder / self.source.path

    def advice(self) -> str:
        """What to do about it, for people."""
        if self.source.instructions:
            return self.source.instructions.replace("{folder}", str(self.folder))
        if not self.source.unpack:
            return f"put the file {self.place.name} into {self.place.parent}"
        names = dict.fromkeys(Address.of(url, self.source).name for url in self.source.urls)
        return f"put {' or '.join(names)} into {self.folder} and run this again to unpack it"


@dataclass(frozen=True)
class Address:
    """One of a source's addresses, taken apart.

    Attributes:
        url: what is opened.
        page: what a person opens in a browser.
        name: of the file there.
        checksum: of the file there, if it is known.
    """

    url: str
    page: str
    name: str
    checksum: str

    @classmethod
    def of(cls, url: str, source: Source, drive: str = DRIVE) -> "Address":
        """Read an address as `Source.urls` has them; `drive` comes before Google Drive's ids."""
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
    """How a dataset's folder is filled.

    Attributes:
        folder: the dataset's.
        keep_archives: move what was downloaded into the folder instead of removing it.
        drive: what comes before the id of a file of Google Drive.
        budget: of what archives may take; None for the bounds of `safeio.archives`.
    """

    folder: Path
    keep_archives: bool = False
    drive: str = DRIVE
    budget: Budget | None = None

    @property
    def work(self) -> Path:
        """The folder of what is not finished."""
        return self.folder / ".download"

    def fetch(self, sources: Sequence[Source]) -> list[Missing]:
        """Get whatever is wanted and not there; other runs on the same folder wait.

        Args:
            sources: all that the dataset needs.

        Returns:
            What could not be had.

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
            missing = [lost for group in _by_archive(sources) for lost in self._fetch_group(group)]
            self._tidy()
        return missing

    def _fetch_group(self, group: Sequence[Source]) -> list[Missing]:
        """Get sources that are had together, from the first address that works."""
        wanted = [source for source in group if source.is_wanted(self.folder)]
        tried: list[tuple[str, str]] = []
        for address, by_hand in self._origins(wanted):
            file = (self.folder if by_hand else self.work) / address.name
            try:
                self._try(address, file, wanted, by_hand)
                break
            except (DownloadError, ArchiveError, OSError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                tried.append((str(file) if by_hand else address.page, reason))
                if isinstance(error, (TooLargeError, OSError)):
                    break  # the disk is full: another address has the same file
        return [
            Missing(source, self.folder, tuple(tried))
            for source in wanted
            if not source.is_there(self.folder)
        ]

    def _origins(self, wanted: Sequence[Source]) -> list[tuple[Address, bool]]:
        """Addresses in their order, before them archives that somebody put into the folder."""
        if not wanted:
            return []
        source = wanted[0]
        addresses = [Address.of(url, source, self.drive) for url in source.urls]
        by_hand = [
            (address, True)
            for address in addresses
            if source.unpack and (self.folder / address.name).is_file()
        ]
        return by_hand + [(address, False) for address in addresses]

    def _try(self, address: Address, file: Path, wanted: Sequence[Source], by_hand: bool) -> None:
        source = wanted[0]
        if by_hand:
            print(f"{file}: is there already")
            check(file, address.checksum, source.size)
        else:
            print(f"{self.folder / source.path}: from {address.page}")
            download(
                address.url,
                file,
                checksum=address.checksum,
                size=source.size,
                attempts=ATTEMPTS,
            )
        if not source.unpack:
            _move(file, self.folder / source.path)
            return
        try:
            self._unpack(file, wanted)
        except (TooLargeError, LayoutError):
            raise  # the archive is as it should be, and stays
        except ArchiveError:
            if not by_hand:
                file.unlink()
            raise
        if not by_hand:
            self._dispose(file)

    def _dispose(self, archive: Path) -> None:
        if not self.keep_archives:
            archive.unlink()
        elif not (self.folder / archive.name).exists():
            archive.replace(self.folder / archive.name)

    def _unpack(self, archive: Path, wanted: Sequence[Source]) -> None:
        tree = self.work / f"{archive.name}.unpacked"
        shutil.rmtree(tree, ignore_errors=True)  # of a run that was killed
        try:
            extract(archive, tree, self.budget)
            lost = [source.path for source in wanted if not self._place(source, tree)]
        finally:
            shutil.rmtree(tree, ignore_errors=True)
        if lost:
            raise LayoutError(f"it is unpacked, but holds no {', '.join(lost)}; see {archive}")

    def _place(self, source: Source, tree: Path) -> bool:
        """Move a source from an unpacked archive to its place, if it is there."""
        for name in source.unpack:
            found = self._find(tree, name.split("/"))
            if found is not None:
                _move(found, self.folder / source.path)
                return True
        return False

    def _find(self, place: Path, names: Sequence[str]) -> Path | None:
        """Go down a tree by names, each at any depth below the last, through inner archives."""
        for name in names:
            if place.is_file():
                inner = place.with_name(f"{place.name}.unpacked")
                if not inner.exists():
                    extract(place, inner, self.budget)
                place = inner
            found = _shallowest(place, name)
            if found is None:
                return None
            place = found
        return place

    def _tidy(self) -> None:
        """Remove the working folder unless a later run can resume something in it."""
        for lock in self.work.glob(".*.lock"):
            lock.unlink()
        with suppress(OSError):
            self.work.rmdir()


def _by_archive(sources: Sequence[Source]) -> list[list[Source]]:
    """Sources with the same archive together, in the order of the first."""
    groups: dict[tuple[str, ...], list[Source]] = {}
    for source in sources:
        key = source.urls if source.unpack else (source.path,)
        groups.setdefault(key, []).append(source)
    return list(groups.values())


def _shallowest(tree: Path, name: str) -> Path | None:
    level = [tree]
    while level:
        entries = [entry for folder in level for entry in sorted(folder.iterdir())]
        for entry in entries:
            if entry.name == name:
                return entry
        level = [entry for entry in entries if entry.is_dir()]
    return None


def _move(found: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        place.rmdir()  # an empty one: with content it would not be wanted
    found.replace(place)
