"""Which folders are classes, which are the parts train, val and test, and which only hold these."""

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
# What may stand around such a word, as in Train_Set, test-images, seg_train or val2017.
_AROUND = (
    "(?:data|dataset|dir|files?|folder|images?|imgs?|parts?|photos?|pictures?|samples?|seg|sets?"
    "|splits?|[0-9])*"
)
_PART = {part: re.compile(f"{_AROUND}(?:{word}){_AROUND}") for part, word in _WORDS.items()}
_LETTERS = re.compile("[A-Z]?[a-z]+|[A-Z]+")
# Words of which nobody can tell which part they mean, and those of pictures without a class.
_UNCLEAR = frozenset(("dev", "eval", "evaluation", "gallery", "holdout", "query", "trainval"))
_UNLABELLED = frozenset(("pred", "predict", "prediction", "unlabeled", "unlabelled"))
_SPELLINGS = "train, val and test (or Training, valid, test_images and the like)"
# Folders that are no classes: ours, and what systems leave beside files.
_NO_CLASS = frozenset(
    ("split_fewshot", "__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "lost+found")
)


def folders_in(folder: Path) -> list[str]:
    """Sorted names of the folders that may be classes or parts; hidden ones are none."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _is_folder(entry)]
    return sorted(name for name in names if not name.startswith(".") and name not in _NO_CLASS)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def files_below(folder: Path) -> Iterator[str]:
    """Paths of all files below a folder that are not hidden, in a fixed order.

    Links are followed, but no folder is entered twice, so that links in a circle come to an end.

    Raises:
        UserError: a name is not UTF-8, which no split file could hold.
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
            if any("\ud800" <= letter <= "\udfff" for letter in path):
                raise UserError(f"The file name {path!a} is not UTF-8; rename the file")
            yield path


def part_of(name: str) -> str | None:
    """The part that a folder, or a value of a CSV's column `split`, names in any usual spelling."""
    plain = re.sub(r"[\W_]+", "", name).lower()
    return next((part for part in PARTS if _PART[part].fullmatch(plain)), None)


def find_parts(folder: Path) -> tuple[Path, dict[str, Path]]:
    """Find the folders that hold the class folders.

    Args:
        folder: what the user names. Where all images lie in a single folder of folders below it,
            that one is meant.

    Returns:
        The folder that is meant, and part -> its folder; nothing where it holds classes itself.

    Raises:
        UserError: two folders are the same part, classes stand beside parts, or parts in classes.
    """
    meant = _unwrapped(folder)
    if meant != folder:
        print(f"All images of {folder} are in {meant}, whose folders are taken")
    names = folders_in(meant)
    named = {name: part for name in names if (part := part_of(name))}
    if not _are_parts(meant, names, list(named)):
        _refuse_hidden_parts(meant, names)
        return meant, {}
    parts: dict[str, Path] = {}
    for name, part in named.items():
        if part in parts:
            raise UserError(
                f"{meant} holds {parts[part].name} and {name}, which both mean {part}; rename one"
            )
        parts[part] = meant / name
    parts = {part: parts[part] for part in PARTS if part in parts}
    _refuse_classes_beside(meant, parts, [name for name in names if name not in named])
    return meant, _unwrapped_parts(parts)


def _holds_class_folders(folder: Path) -> bool:
    """Whether there are folders in it and no images of its own."""
    if not folders_in(folder):
        return False
    with os.scandir(folder) as entries:
        return not any(is_image(entry.name) and entry.is_file() for entry in entries)


def _has_images(folder: Path) -> bool:
    return any(map(is_image, files_below(folder)))


def _inner(folder: Path) -> Path | None:
    """The only folder with images in a folder, where it is no part and holds folders alone."""
    found: list[str] = []
    for name in folders_in(folder):
        if _has_images(folder / name):
            found.append(name)
        if len(found) > 1:
            return None
    if not found or part_of(found[0]) or not _holds_class_folders(folder / found[0]):
        return None
    return folder / found[0]


def _unwrapped(folder: Path) -> Path:
    entered = {folder.resolve()}
    while (inner := _inner(folder)) and inner.resolve() not in entered:
        entered.add(inner.resolve())
        folder = inner
    return folder


def _unwrapped_parts(parts: dict[str, Path]) -> dict[str, Path]:
    """Parts whose classes lie one or more folders deeper, such as seg_train/seg_train/<class>."""
    inner = {part: _only_folder(path) for part, path in parts.items()}
    known = {name for part in parts if not inner[part] for name in folders_in(parts[part])}
    deeper = {part: path for part, path in inner.items() if path and path.name not in known}
    if not deeper or any(p.resolve() in p.parent.resolve().parents for p in deeper.values()):
        return parts  # or a link leads back
    print(f"The classes are in {', '.join(map(str, deeper.values()))}")
    return _unwrapped_parts({**parts, **deeper})


def _only_folder(folder: Path) -> Path | None:
    names = folders_in(folder)
    only = folder / names[0] if len(names) == 1 else None
    return only if only and _holds_class_folders(only) else None


def _are_parts(folder: Path, names: Sequence[str], named: Sequence[str]) -> bool:
    """Whether folders named like parts are such: one alone may be a class, such as a train."""
    if len({part_of(name) for name in named}) > 1:
        return True
    if any(_holds_class_folders(folder / name) for name in named):
        return True
    return len(named) == len(names) == 1 and bool(folders_in(folder / named[0]))


def _refuse_classes_beside(folder: Path, parts: dict[str, Path], others: Sequence[str]) -> None:
    """Refuse folders of images beside parts; those without images, or without labels, are named."""
    beside = ", ".join(path.name for path in parts.values())
    for name in others:
        if _has_images(folder / name) and not _UNLABELLED.intersection(_words(name)):
            raise UserError(
                f"{folder} holds {one_line(name)}, a folder of images, beside the parts {beside}; "
                f"move it into one of them or away, or rename it: parts are called {_SPELLINGS}"
            )
    if others:
        print(f"Not used beside {beside} in {folder}: {one_line(', '.join(others))}")


def _refuse_hidden_parts(folder: Path, names: Sequence[str]) -> None:
    """Refuse class folders that are parts under another name, or that have parts inside."""
    inside = {name: folders_in(folder / name) for name in names}
    for name, own in inside.items():
        if len({part_of(inner) for inner in own} - {None}) > 1:
            raise UserError(
                f"{folder / name} holds the parts {', '.join(own)}, but parts stand above the "
                f"classes: {folder}/train/{name}, {folder}/test/{name}"
            )
        like = _UNCLEAR.union("|".join(_WORDS.values()).split("|")).intersection(_words(name))
        if like and _holds_class_folders(folder / name):
            raise UserError(
                f"{folder / name} is named like a part and holds folders instead of images; name "
                f"parts {_SPELLINGS}, and put the images of a class right into its folder"
            )
    _warn_of_same_folders(folder, inside)


def _words(name: str) -> list[str]:
    return [word.lower() for word in _LETTERS.findall(name)]


def _warn_of_same_folders(folder: Path, inside: dict[str, list[str]]) -> None:
    """Warn where the folders look like domains or folds with the same classes in each."""
    first = next(iter(inside.values()), [])
    if len(inside) > 1 and len(first) > 1 and all(own == first for own in inside.values()):
        print(
            f"Warning: the classes are {one_line(', '.join(inside))}, folders of {folder} that all "
            f"hold the same folders: {one_line(', '.join(first))}"
        )
