"""Pure operations on lists of images: split files, random splits, halves of the classes."""

import hashlib
import json
import math
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safeio.errors import UserError
from safeio.files import publish_json, read_json
from safeio.untrusted import short_repr

from .base_dataset import Datum, group_by
from .paths import safe_join

_SEPARATOR = os.sep
PARTS = ("train", "val", "test")
Split = dict[str, list[Datum]]


def read_items(
    entries: Iterable[Any], directory: Path, source: object, first_label: int = 0
) -> list[Datum]:
    """Turn [[relative path, label, class name], ...] into images below `directory`.

    Args:
        entries: of a split file or another list.
        directory: the folder to which the paths are relative.
        source: where the entries come from, for the messages.
        first_label: the number that the entries give to the first class.

    Raises:
        UserError: an entry of another form; names `source`.
    """
    items = []
    for number, entry in enumerate(entries, 1):
        try:
            relative, label, classname = entry
            path = safe_join(directory, relative)
            items.append(Datum(path, _whole(label) - first_label, classname=classname))
        except UserError as error:
            raise UserError(f"{source}, entry {number}: {error}") from error
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(
                f"{source}: entry {number} is not [relative path, label, class name] with a whole "
                f"number from {first_label} on as label: {short_repr(entry)}"
            ) from error
    return items


def _whole(label: Any) -> int:
    """A label as the number that it is; text of digits counts, too.

    Raises:
        ValueError: it is none, such as 0.5 or true.
        TypeError: it is of another kind.
    """
    number = int(label)
    if isinstance(label, bool) or (not isinstance(label, str) and number != label):
        raise ValueError("a label is a whole number")
    return number


def to_entries(items: Sequence[Datum], directory: Path) -> list[list[Any]]:
    """Turn images into [[path relative to `directory`, label, class name], ...].

    Raises:
        ValueError: an image lies outside of the directory.
    """
    prefix = os.path.join(directory, "")  # noqa: PTH118 (Path drops the separator at the end)
    entries: list[list[Any]] = []
    for item in items:
        if not item.impath.startswith(prefix):
            raise ValueError(f"{item.impath} is not below {directory}")
        relative = item.impath[len(prefix) :].replace(_SEPARATOR, "/")
        entries.append([relative, item.label, item.classname])
    return entries


def entries_digest(parts: Mapping[str, Sequence[Datum]], directory: Path) -> str:
    """SHA-256 of the JSON text {part: `to_entries`}, made piece by piece: it may be 100 MB long."""
    piece = 10_000
    digest = hashlib.sha256(b"{")
    for number, (part, items) in enumerate(parts.items()):
        digest.update(f"{', ' * (number > 0)}{json.dumps(part)}: [".encode())
        for start in range(0, len(items), piece):
            text = json.dumps(to_entries(items[start : start + piece], directory))[1:-1]
            digest.update(f"{', ' * (start > 0)}{text}".encode())
        digest.update(b"]")
    digest.update(b"}")
    return digest.hexdigest()


def read_split(filepath: Path, directory: Path) -> Split:
    """Read a split file: {"train"|"val"|"test": [[relative path, label, class name], ...]}.

    Args:
        filepath: the JSON file.
        directory: the folder to which its paths are relative.

    Raises:
        UserError: the file is no such split, or a path leads out of the folder.
    """
    try:
        content = read_json(filepath)
        parts = {part: content[part] for part in PARTS}
        if not all(isinstance(entries, list) for entries in parts.values()):
            raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{filepath} is not a split file with the lists train, val and test"
        ) from error
    split = {part: read_items(entries, directory, filepath) for part, entries in parts.items()}
    # One look for each part tells images in a wrong place; a run looks for all that it will open.
    first = [items[0].impath for items in split.values() if items]
    if first and not any(Path(path).exists() for path in first):
        raise UserError(
            f"The image {first[0]} does not exist, but {filepath} names it; the images have to be "
            f"in {directory}"
        )
    return split


def save_split(split: Split, filepath: Path, directory: Path) -> Split:
    """Write a split file, unless another run was first.

    Returns:
        The split that the file now holds.

    Raises:
        UserError: the file could not be read back; it is not written.
    """
    entries = {part: to_entries(split[part], directory) for part in PARTS}
    for part in PARTS:
        read_items(entries[part], directory, filepath)  # what cannot be read is not written
    kept = publish_json(entries, filepath)
    return {part: read_items(kept[part], directory, filepath) for part in PARTS}


def split_trainval(
    trainval: Sequence[Datum], p_val: float = 0.2, rng: Any = random
) -> tuple[list[Datum], list[Datum]]:
    """Cut a validation part off each class of a training list.

    Args:
        trainval: the images.
        p_val: the fraction of each class that goes to validation (rounded).
        rng: the generator; Python's global one by default.

    Returns:
        Training and validation images, shuffled within each class.

    Raises:
        UserError: a class is too small to give a validation image.
    """
    train: list[Datum] = []
    val: list[Datum] = []
    for items in group_by("label", trainval).values():
        count = round(len(items) * p_val)
        if count < 1:
            raise UserError(
                f'The class "{items[0].classname}" has {len(items)} images, too few to cut '
                f"{p_val:.0%} off for validation"
            )
        order = list(range(len(items)))
        rng.shuffle(order)
        val += [items[i] for i in order[:count]]
        train += [items[i] for i in order[count:]]
    return train, val


def split_lists(trainval: Sequence[Datum], test: Sequence[Datum]) -> Split:
    """Make a split of the two lists that many datasets come with; see `split_trainval`."""
    train, val = split_trainval(trainval)
    return {"train": train, "val": val, "test": list(test)}


def split_all(items: Sequence[Datum]) -> Split:
    """Shuffle each class and cut it: 50% for training, 20% for validation, the rest for the test.

    Raises:
        UserError: a class is too small for three parts.
    """
    split: Split = {part: [] for part in PARTS}
    for group in group_by("label", items).values():
        order = list(group)
        random.shuffle(order)
        n_train, n_val = round(len(order) * 0.5), round(len(order) * 0.2)
        if min(n_train, n_val, len(order) - n_train - n_val) < 1:
            raise UserError(
                f'The class "{group[0].classname}" has {len(group)} images, too few for a '
                "training, a validation and a test part"
            )
        split["train"] += order[:n_train]
        split["val"] += order[n_train : n_train + n_val]
        split["test"] += order[n_train + n_val :]
    return split


def subsample_classes(*sources: Sequence[Datum], subsample: str = "all") -> list[list[Datum]]:
    """Keep the first (base) or second (new) half of the classes, relabelled from 0.

    Args:
        *sources: lists of images; the labels of the first that has any decide about the halves.
        subsample: all, base (the first ceil(n / 2) labels) or new (the rest).

    Raises:
        UserError: another word.
    """
    if subsample == "all":
        return [list(source) for source in sources]
    if subsample not in ("base", "new"):
        raise UserError(
            f'DATASET.SUBSAMPLE_CLASSES "{subsample}" is unknown; accepted: all, base, new'
        )
    deciding = next((source for source in sources if source), ())
    labels = sorted({item.label for item in deciding})
    middle = math.ceil(len(labels) / 2)
    selected = labels[:middle] if subsample == "base" else labels[middle:]
    new_label = {label: position for position, label in enumerate(selected)}
    return [
        [
            Datum(item.impath, new_label[item.label], item.domain, item.classname)
            for item in source
            if item.label in new_label
        ]
        for source in sources
    ]
