"""What a dataset needs on disk, where each part can be had, and what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from safeio.errors import UserError


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

    def holds(self, path: str) -> bool:
        """Whether `path`, relative to the dataset's folder, is what this gives or a part of it."""
        own, wanted = PurePosixPath(self.path), PurePosixPath(path)
        return own == wanted or own in wanted.parents

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


def needed_paths(
    image_dir: str, sources: Sequence[Source], split_sources: Sequence[str]
) -> list[str]:
    """Files and folders, relative to the dataset's, without which it cannot be loaded.

    Args:
        image_dir: the folder of images.
        sources: all that belongs to the dataset.
        split_sources: files that the split is made from.
    """
    needed = [] if image_dir == "." else [image_dir]
    for source in sources:
        for_split = any(source.holds(path) for path in split_sources)
        if not (source.optional or for_split or source.path in needed):
            needed.append(source.path)
    return needed


def refuse_missing(
    name: str, root: Path, folder: str, paths: Sequence[tuple[str, str]], sources: Sequence[Source]
) -> None:
    """Make sure that files and folders of a dataset are there.

    Args:
        name: of the dataset.
        root: the data root.
        folder: the dataset's folder below it.
        paths: what is needed, relative to that folder, each with what else would do.
        sources: where it can be had.

    Raises:
        UserError: names all that is missing, where it has to be and how it can be had.
    """
    download = f"python download.py {name} --root"
    if not root.is_dir():
        raise UserError(
            f'The data root "{root}" is no folder; set it with --root to the folder that holds '
            f"{folder}/{f', or fill one with: {download} FOLDER' if sources else ''}"
        )
    directory = root / folder
    missing = []
    for path, instead in paths:
        if not (directory / path).exists():
            ways = ", ".join(filter(None, (_where(path, sources, directory), instead)))
            missing.append(f"{directory / path} is missing{ways and f' ({ways})'}")
    if missing:
        advice = f"; get what can be downloaded with: {download} {root}" if sources else ""
        raise UserError(f"{name}: {'; '.join(missing)}{advice}")


def _where(path: str, sources: Sequence[Source], directory: Path) -> str:
    """The instructions, or else the first address, of what gives a path."""
    source = next((source for source in sources if source.holds(path)), None)
    if source is None or source.instructions:
        return source.instructions.replace("{folder}", str(directory)) if source else ""
    return f"from {page_of(source.urls[0])}" if source.urls else ""
