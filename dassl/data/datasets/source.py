"""What a dataset needs on disk, and where each part can be had."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """One file or folder that has to be in a dataset's folder.

    Attributes:
        path: where it stands, relative to the dataset's folder.
        urls: where it can be had, tried in turn; `gdrive:<id>/<file name>` is a file of Google
            Drive (the name may be left out where the file is `path` itself). An address may end
            in `#md5=<hex>` or `#sha256=<hex>`, where not all have the same file.
        unpack: names of `path` in the downloaded archive, tried in turn, at whatever depth; empty
            if the downloaded file is `path` itself. `inner.zip/name` is in an archive within it.
        checksum: `sha256:<hex>` or `md5:<hex>` of the downloaded file, where it is published.
        size: of the downloaded file, in bytes, where it is published.
        instructions: for people, where no address works without them; `{folder}` stands for the
            dataset's folder.
        optional: the dataset can do without it.
        unless: it is only needed while this other path is missing.
    """

    path: str
    urls: tuple[str, ...] = ()
    unpack: tuple[str, ...] = ()
    checksum: str = ""
    size: int | None = None
    instructions: str = ""
    optional: bool = False
    unless: str = ""

    def is_there(self, folder: Path) -> bool:
        """Whether a dataset's folder has it; an empty folder does not count."""
        return _has_content(folder / self.path)

    def is_wanted(self, folder: Path) -> bool:
        """Whether a dataset's folder lacks it and nothing there stands in for it."""
        replaced = bool(self.unless) and _has_content(folder / self.unless)
        return not replaced and not self.is_there(folder)


def page_of(url: str) -> str:
    """What a person opens in a browser, for an address as `Source.urls` has them."""
    address, _, _ = url.partition("#")
    if address.startswith("gdrive:"):
        number, _, _ = address.removeprefix("gdrive:").partition("/")
        return f"https://drive.google.com/uc?id={number}"
    return address


def _has_content(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()
