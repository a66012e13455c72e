"""Files and folders that a dataset needs, where to download them, and which are missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from safeio.errors import UserError


@dataclass(frozen=True)
class Source:
    """File or folder that must be in a dataset's folder.

    Attributes:
        path: its path, relative to the dataset's folder.
        urls: addresses to download it from, tried in turn; `gdrive:<id>/<file name>` is a file on
            Google Drive (the name can be omitted if the file is `path` itself). An address may end
            in `#md5=<hex>` or `#sha256=<hex>`, if the addresses have different files.
        unpack: names of `path` in the downloaded archive at any depth, tried in turn; empty if the
            downloaded file is `path` itself. `inner.zip/name` is in an archive within it.
        checksum: `sha256:<hex>` or `md5:<hex>` of the downloaded file, if published.
        size: size of the downloaded file in bytes, if published.
        instructions: manual steps if it cannot be downloaded automatically; `{folder}` is a
            placeholder for the dataset's folder.
        optional: whether the dataset works without it.
        unless: it is only needed if this other path is missing.
    """

    path: str
    urls: tuple[str, ...] = ()
    unpack: tuple[str, ...] = ()
    checksum: str = ""
    size: int | None = None
    instructions: str = ""
    optional: bool = False
    unless: str = ""

    def provides(self, path: str) -> bool:
        """Return whether `path`, relative to the dataset's folder, is this source or in it."""
        own, inner = PurePosixPath(self.path), PurePosixPath(path)
        return own == inner or own in inner.parents

    def is_there(self, folder: Path) -> bool:
        """Return whether it is in a dataset's folder; an empty folder does not count."""
        return _has_content(folder / self.path)

    def is_wanted(self, folder: Path) -> bool:
        """Return whether it and its replacement (`unless`) are missing in a dataset's folder."""
        replaced = bool(self.unless) and _has_content(folder / self.unless)
        return not replaced and not self.is_there(folder)


def page_of(url: str) -> str:
    """Return the address to open in a browser for one of `Source.urls`."""
    address, _, _ = url.partition("#")
    if address.startswith("gdrive:"):
        number, _, _ = address.removeprefix("gdrive:").partition("/")
        return f"https://drive.google.com/uc?id={number}"
    return address


def _has_content(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


def needed_paths(
    image_dir: str, sources: Sequence[Source], split_sources: Sequence[str]
) -> list[str]:
    """Return the required files and folders, relative to the dataset's folder."""
    needed = [] if image_dir == "." else [image_dir]
    for source in sources:
        for_split = any(source.provides(path) for path in split_sources)
        if not (source.optional or for_split or source.path in needed):
            needed.append(source.path)
    return needed


def refuse_missing(
    name: str, root: Path, folder: str, paths: Sequence[tuple[str, str]], sources: Sequence[Source]
) -> None:
    """Make sure that the `paths` of a dataset exist; each has an alternative for the message.

    Raises:
        UserError: files are missing; the message lists them with their paths and sources.
    """
    download = f"python -m nemesis download {name} --root"
    if not root.is_dir():
        raise UserError(
            f'The data root "{root}" is not a folder; set it with --root to the folder that '
            f"contains {folder}/{f', or fill one with: {download} FOLDER' if sources else ''}"
        )
    directory = root / folder
    missing = []
    for path, alternative in paths:
        if not (directory / path).exists():
            ways = ", ".join(filter(None, (_origin(path, sources, directory), alternative)))
            missing.append(f"{directory / path} is missing{ways and f' ({ways})'}")
    if missing:
        advice = f"; download what is available with: {download} {root}" if sources else ""
        raise UserError(f"{name}: {'; '.join(missing)}{advice}")


def _origin(path: str, sources: Sequence[Source], directory: Path) -> str:
    """Return the instructions, or else the first address, of the source of a path."""
    source = next((source for source in sources if source.provides(path)), None)
    if source is None or source.instructions:
        return source.instructions.replace("{folder}", str(directory)) if source else ""
    return f"from {page_of(source.urls[0])}" if source.urls else ""
