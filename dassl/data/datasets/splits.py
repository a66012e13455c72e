"""Split files, random splits, and base and new classes."""

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
        entries: entries of a split file or another list.
        directory: the folder to which the paths are relative.
        source: file of the entries, for the messages.
        first_label: label of the first class in the entries.

    Raises:
        UserError: an entry has another form.
    """
    items = []
    for number, entry in enumerate(entries, 1):
        try:
            relative, label, classname = entry
            path = safe_join(directory, relative)
            items.append(Datum(path, _integer(label) - first_label, classname=classname))
        except UserError as error:
            raise UserError(f"{source}, entry {number}: {error}") from error
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(
                f"{source}: entry {number} is not [relative path, label, class name] with an "
                f"integer of at least {first_label} as label: {short_repr(entry)}"
            ) from error
    return items


def _integer(label: Any) -> int:
    """Convert a label, which may be a text of digits, to an integer.

    Raises:
        ValueError: it is not an integer, such as 0.5 or true.
        TypeError: it has another type.
    """
    number = int(label)
    if isinstance(label, bool) or (not isinstance(label, str) and number != label):
        raise ValueError("a label must be an integer")
    return number


def to_entries(items: Sequence[Datum], directory: Path) -> list[list[Any]]:
    """Turn images into [[path relative to `directory`, label, class name], ...].

    Raises:
        ValueError: an image is outside of the directory.
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
    """Return the SHA-256 of the JSON text {part: `to_entries`}.

    The text, which may have 100 MB, is hashed in pieces.
    """
    piece = 10_000
    digest = hashlib.sha256(b"{")
    for number, (part, items) in enumerate(parts.items()):
        digest.update(f"{', ' if number else ''}{json.dumps(part)}: [".encode())
        for start in range(0, len(items), piece):
            text = json.dumps(to_entries(items[start : start + piece], directory))[1:-1]
            digest.update(f"{', ' if start else ''}{text}".encode())
        digest.update(b"]")
    digest.update(b"}")
    return digest.hexdigest()


def read_split(filepath: Path, directory: Path) -> Split:
    """Read a split file: {"train"|"val"|"test": [[path below directory, label, class name], ...]}.

    Raises:
        UserError: the file is not a split file, or a path leads out of the folder.
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
    # One image of each part shows whether the folder is right; `check_files` checks all of them.
    first = [items[0].impath for items in split.values() if items]
    if first and not any(Path(path).exists() for path in first):
        raise UserError(
            f"The image {first[0]} does not exist, but {filepath} contains it; the images must be "
            f"in {directory}"
        )
    return split


def save_split(split: Split, filepath: Path, directory: Path) -> Split:
    """Write a split file, unless another run has just written it.

    Returns:
        The split in the file.

    Raises:
        UserError: the entries could not be read back; nothing is written.
    """
    entries = {part: to_entries(split[part], directory) for part in PARTS}
    for part in PARTS:
        read_items(entries[part], directory, filepath)  # raises before the file is written
    published = publish_json(entries, filepath)
    return {part: read_items(published[part], directory, filepath) for part in PARTS}


def split_trainval(
    trainval: Sequence[Datum], p_val: float = 0.2, rng: Any = random
) -> tuple[list[Datum], list[Datum]]:
    """Split a training list into training and validation images, class by class.

    Args:
        trainval: the images.
        p_val: the fraction of each class for validation (rounded).
        rng: random generator; default: Python's global one.

    Returns:
        Training and validation images, shuffled within each class.

    Raises:
        UserError: a class is too small for a validation image.
    """
    train: list[Datum] = []
    val: list[Datum] = []
    for items in group_by("label", trainval).values():
        count = round(len(items) * p_val)
        if count < 1:
            raise UserError(
                f'The class "{items[0].classname}" has {len(items)} images, too few to use '
                f"{p_val:.0%} for validation"
            )
        order = list(range(len(items)))
        rng.shuffle(order)
        val += [items[i] for i in order[:count]]
        train += [items[i] for i in order[count:]]
    return train, val


def sample_total(
    train: Sequence[Datum], val: Sequence[Datum], total: int, rng: random.Random
) -> tuple[list[Datum], list[Datum]]:
    """Draw `total` images of both lists, regardless of classes: 80% to train, 20% to validate.

    VTAB-1k draws 800 and 200 images in this way (Zhai et al., 2019, section 2.3).

    Raises:
        UserError: the lists have fewer images.
    """
    images = [*train, *val]
    if total > len(images):
        raise UserError(
            f"DATASET.NUM_TRAIN is {total:,}, but the dataset has only {len(images):,} training "
            "and validation images; choose at most as many, or 0 for all"
        )
    chosen, cut = rng.sample(images, total), round(0.8 * total)
    return chosen[:cut], chosen[cut:]


def split_lists(trainval: Sequence[Datum], test: Sequence[Datum]) -> Split:
    """Return a split of the two lists that many datasets have; see `split_trainval`."""
    train, val = split_trainval(trainval)
    return {"train": train, "val": val, "test": list(test)}


def split_all(items: Sequence[Datum]) -> Split:
    """Split each class randomly: 50% for training, 20% for validation, the rest for the test.

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
    """Return the images of all, base or new classes, with labels from 0.

    Args:
        *sources: lists of images; the labels of the first that is not empty are halved.
        subsample: all, base (the first ceil(n / 2) labels) or new (the rest).

    Raises:
        UserError: `subsample` has another value.
    """
    if subsample == "all":
        return [list(source) for source in sources]
    if subsample not in ("base", "new"):
        raise UserError(
            f'DATASET.SUBSAMPLE_CLASSES "{subsample}" is unknown; accepted: all, base, new'
        )
    labels = sorted({item.label for item in next(filter(None, sources), ())})
    middle = math.ceil(len(labels) / 2)
    return _select(sources, labels[:middle] if subsample == "base" else labels[middle:])


def task_bounds(classes: int, tasks: int) -> list[int]:
    """Return the number of classes before each task and, last, of all classes.

    Raises:
        UserError: a task would have fewer than two classes.
    """
    if tasks > classes // 2:
        raise UserError(
            f"DATASET.TASKS is {tasks}, but {classes} classes give at most {classes // 2} tasks "
            "of two classes"
        )
    return [number * classes // tasks for number in range(tasks + 1)]


def task_classes(
    *sources: Sequence[Datum], tasks: int, task: int, part: str, seed: int
) -> list[list[Datum]]:
    """Return the images of some tasks' classes, labelled from 0 in the order of the tasks.

    Args:
        *sources: lists of images; the classes are those of the first that is not empty.
        tasks: number of tasks, with equal numbers of classes up to one.
        task: number of the current task, from 1.
        part: own (the current task's classes), seen (also earlier ones) or unseen (later ones).
        seed: draws the order of the classes.

    Raises:
        UserError: a task would have fewer than two classes, or no class is unseen.
    """
    labels = sorted({item.label for item in next(filter(None, sources), ())})
    bounds = task_bounds(len(labels), tasks)
    random.Random(seed).shuffle(labels)
    first, end = bounds[task - 1], bounds[task]
    chosen = {"own": labels[first:end], "seen": labels[:end], "unseen": labels[end:]}[part]
    if not chosen:
        raise UserError(f"DATASET.TASK_CLASSES is {part}, but task {task} is the last of {tasks}")
    return _select(sources, chosen)


def _select(sources: Sequence[Sequence[Datum]], selected: Sequence[int]) -> list[list[Datum]]:
    """Return the images with these labels, which become 0, 1, ... in their order."""
    new_label = {label: position for position, label in enumerate(selected)}
    return [
        [
            Datum(item.impath, new_label[item.label], item.domain, item.classname)
            for item in source
            if item.label in new_label
        ]
        for source in sources
    ]
