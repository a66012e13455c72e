"""What of a dataset is not on the disk, said in one sentence."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from safeio.errors import UserError

from .source import Source, page_of


def holds(source: Source, path: str) -> bool:
    """Whether `path` is what a source gives, or a part of it."""
    own, wanted = PurePosixPath(source.path), PurePosixPath(path)
    return own == wanted or own in wanted.parents


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
        for_split = any(holds(source, path) for path in split_sources)
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
    source = next((source for source in sources if holds(source, path)), None)
    if source is None or source.instructions:
        return source.instructions.replace("{folder}", str(directory)) if source else ""
    return f"from {page_of(source.urls[0])}" if source.urls else ""
