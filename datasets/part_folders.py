"""Detection of the parts train, val and test, and of class folders, below a folder."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from dassl.data.datasets.splits import PARTS
from dassl.data.image_kinds import is_image
from safeio.errors import UserError
from safeio.untrusted import one_line

_WORDS = {
    "train": "train|training|trn",
    "val": "val|valid|validation",
    "test": "test|testing|tst",
}
# Words and digits that may surround it, as in Train_Set, test-images, seg_train or val2017.
_AROUND = (
    "(?:data|dataset|dir|files?|folder|images?|imgs?|parts?|photos?|pictures?|samples?|seg|sets?"
    "|splits?|[0-9])*"
)
_PART = {part: re.compile(f"{_AROUND}(?:{word}){_AROUND}") for part, word in _WORDS.items()}
_LETTERS = re.compile("[A-Z]?[a-z]+|[A-Z]+")
# Ambiguous names of parts, and names of folders of unlabelled images.
_UNCLEAR = frozenset(("dev", "eval", "evaluation", "gallery", "holdout", "query", "trainval"))
_UNLABELLED = frozenset(("pred", "predict", "prediction", "unlabeled", "unlabelled"))
_SPELLINGS = "train, val and test (or Training, valid, test_images and the like)"
# Folders that are not classes: created by this project or by operating systems.
_NO_CLASS = frozenset(
    ("split_fewshot", "__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "lost+found")
)


def folders_in(folder: Path) -> list[str]:
    """Return the sorted names of folders that may be classes or parts, without hidden ones."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _is_folder(entry)]
    return sorted(name for name in names if not name.startswith(".") and name not in _NO_CLASS)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def files_below(folder: Path) -> Iterator[str]:
    """Yield the paths of all files below a folder, without hidden ones, in a fixed order.

    Links are followed, but no folder is entered twice, so cyclic links are no problem.

    Raises:
        UserError: a name is not valid UTF-8, so that a split file could not contain it.
    """
    entered: set[Path] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = Path(where).resolve()
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            path = f"{where}{os.sep}{name}"
            try:
                path.encode()
            except UnicodeEncodeError:
                raise UserError(
                    f"The file name {path!a} is not valid UTF-8; rename the file"
                ) from None
            yield path


def part_of(name: str) -> str | None:
    """Return the part of a folder's name or a CSV's `split`, in any usual spelling, or None."""
    letters = re.sub(r"[\W_]+", "", name).lower()
    return next((part for part in PARTS if _PART[part].fullmatch(letters)), None)


def find_parts(folder: Path) -> tuple[Path, dict[str, Path]]:
    """Find the folders that contain the class folders.

    Args:
        folder: the user's folder, which may contain all parts or classes in nested folders.

    Returns:
        The innermost folder with all parts or classes, and part -> its folder, or {} if it
        contains classes.

    Raises:
        UserError: two folders are the same part, classes are next to parts, or parts in classes.
    """
    top = _unwrapped(folder)
    if top != folder:
        print(f"All images of {folder} are in {top}, whose folders are used")
    names = folders_in(top)
    named = {name: part for name in names if (part := part_of(name))}
    if not _are_parts(top, names, list(named)):
        _refuse_hidden_parts(top, names)
        return top, {}
    parts: dict[str, Path] = {}
    for name, part in named.items():
        if part in parts:
            raise UserError(
                f"{top} contains {parts[part].name} and {name}, both of which are {part}; "
                "rename one"
            )
        parts[part] = top / name
    parts = {part: parts[part] for part in PARTS if part in parts}
    _refuse_classes_next_to(top, parts, [name for name in names if name not in named])
    return top, _unwrapped_parts(parts)


def _has_class_folders(folder: Path) -> bool:
    """Return whether a folder contains folders, but no images."""
    if not folders_in(folder):
        return False
    with os.scandir(folder) as entries:
        return not any(is_image(entry.name) and entry.is_file() for entry in entries)


def _has_images(folder: Path) -> bool:
    return any(map(is_image, files_below(folder)))


def _inner(folder: Path) -> Path | None:
    """Return the only folder with images, if it is not a part and contains only class folders."""
    found: list[str] = []
    for name in folders_in(folder):
        if _has_images(folder / name):
            found.append(name)
        if len(found) > 1:
            return None
    if not found or part_of(found[0]) or not _has_class_folders(folder / found[0]):
        return None
    return folder / found[0]


def _unwrapped(folder: Path) -> Path:
    entered = {folder.resolve()}
    while (inner := _inner(folder)) and inner.resolve() not in entered:
        entered.add(inner.resolve())
        folder = inner
    return folder


def _unwrapped_parts(parts: dict[str, Path]) -> dict[str, Path]:
    """Return the innermost folders of parts, as for seg_train/seg_train/<class>."""
    inner = {part: _only_folder(path) for part, path in parts.items()}
    known = {name for part in parts if not inner[part] for name in folders_in(parts[part])}
    deeper = {part: path for part, path in inner.items() if path and path.name not in known}
    if not deeper or any(p.resolve() in p.parent.resolve().parents for p in deeper.values()):
        return parts  # there is none, or it is a cyclic link
    print(f"The classes are in {', '.join(map(str, deeper.values()))}")
    return _unwrapped_parts({**parts, **deeper})


def _only_folder(folder: Path) -> Path | None:
    names = folders_in(folder)
    only = folder / names[0] if len(names) == 1 else None
    return only if only and _has_class_folders(only) else None


def _are_parts(folder: Path, names: Sequence[str], named: Sequence[str]) -> bool:
    """Return whether folders named like parts are parts; a single "train" may be a class."""
    if len({part_of(name) for name in named}) > 1:
        return True
    if any(_has_class_folders(folder / name) for name in named):
        return True
    return len(named) == len(names) == 1 and bool(folders_in(folder / named[0]))


def _refuse_classes_next_to(folder: Path, parts: dict[str, Path], others: Sequence[str]) -> None:
    """Refuse folders of images next to parts; print the names of empty and unlabelled ones."""
    part_names = ", ".join(path.name for path in parts.values())
    for name in others:
        if _has_images(folder / name) and not _UNLABELLED.intersection(_words(name)):
            raise UserError(
                f"{folder} contains {one_line(name)}, a folder of images, next to the parts "
                f"{part_names}; move it into one of them or elsewhere, or rename it: the parts are "
                f"{_SPELLINGS}"
            )
    if others:
        print(f"Not used next to {part_names} in {folder}: {one_line(', '.join(others))}")


def _refuse_hidden_parts(folder: Path, names: Sequence[str]) -> None:
    """Refuse class folders that are parts with an ambiguous name or contain parts."""
    inside = {name: folders_in(folder / name) for name in names}
    for name, own in inside.items():
        if len({part_of(inner) for inner in own} - {None}) > 1:
            raise UserError(
                f"{folder / name} contains the parts {', '.join(own)}, but parts must contain the "
                f"classes: {folder}/train/{name}, {folder}/test/{name}"
            )
        like = _UNCLEAR.union("|".join(_WORDS.values()).split("|")).intersection(_words(name))
        if like and _has_class_folders(folder / name):
            raise UserError(
                f"{folder / name} is named like a part and contains folders instead of images; "
                f"name parts {_SPELLINGS}, and put the images of a class directly into its folder"
            )
    _warn_of_same_folders(folder, inside)


def _words(name: str) -> list[str]:
    return [word.lower() for word in _LETTERS.findall(name)]


def _warn_of_same_folders(folder: Path, inside: dict[str, list[str]]) -> None:
    """Warn if the folders look like domains or folds with the same classes."""
    first = next(iter(inside.values()), [])
    if len(inside) > 1 and len(first) > 1 and all(own == first for own in inside.values()):
        print(
            f"Warning: the classes are {one_line(', '.join(inside))}, folders of {folder} that all "
            f"contain the same folders: {one_line(', '.join(first))}"
        )
