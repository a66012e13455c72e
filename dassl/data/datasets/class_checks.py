"""Checks of labels and class names."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from safeio.errors import UserError
from safeio.untrusted import is_printable, one_line

from .splits import Split

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")


def are_numbers(names: Iterable[str]) -> bool:
    """Return whether all names are numbers (0, 10, 007, 3.0, -1), which mean nothing to CLIP."""
    found = list(names)
    return bool(found) and all(map(_NUMBER.fullmatch, found))


def sort_classes(names: Iterable[str]) -> list[str]:
    """Sort folders or labels into the order of the classes: numbers by value, others as text.

    Raises:
        UserError: two are the same number, such as 1 and 01.
    """
    ordered = sorted(names)
    if not are_numbers(ordered):
        return ordered
    ordered.sort(key=float)
    for one, other in itertools.pairwise(ordered):
        if float(one) == float(other):
            raise UserError(
                f'The classes "{one}" and "{other}" are the same number; use the same label for '
                "all images of a class"
            )
    return ordered


def warn_of_numbers(source: object, names: Sequence[str], advice: str = "") -> None:
    """Print a warning if the class names are numbers, with advice how to name the classes."""
    if are_numbers(names):
        print(
            f"Warning: the classes of {source} are numbers, so that prompts read "
            f'"a photo of a {names[0]}."{advice}'
        )


def check_classes(split: Split, source: object) -> list[str]:
    """Make sure that labels and class names match and that names are printable.

    Returns:
        Names that several classes share, as two of ImageNet's do: no prompt can distinguish these
        classes, but papers evaluate on them nevertheless.

    Raises:
        UserError: a name is empty or contains line breaks or control codes, a label has two names,
            labels are not 0, 1, 2, ... without a gap, a class has no training images while others
            do, or there are fewer than two classes.
    """
    known = {part: {(d.label, d.classname) for d in items} for part, items in split.items()}
    pairs = sorted(set[tuple[int, str]]().union(*known.values()))
    _refuse_unprintable(source, [name for _, name in pairs])
    for (label, name), (following, other) in itertools.pairwise(pairs):
        if label == following:
            raise UserError(f'{source}: the label {label} has two names, "{name}" and "{other}"')
    for expected, (label, _) in enumerate(pairs):
        if label != expected:
            raise UserError(
                f"{source}: no image has the label {expected}, but others have {label}; labels "
                "must be 0, 1, 2, ... without a gap"
            )
    untrained = [name for label, name in pairs if (label, name) not in known["train"]]
    if known["train"] and untrained:
        raise UserError(
            f'{source}: the class "{untrained[0]}" has no training images, but others do'
        )
    refuse_one_class(source, dict(pairs))
    names = Counter(name for _, name in pairs)
    return [name for name, count in names.items() if count > 1]


def refuse_one_class(source: object, names: Mapping[int, str]) -> None:
    """Refuse fewer than two classes, for which accuracy would always be 100%.

    Raises:
        UserError: there are fewer than two classes.
    """
    if len(names) < 2:
        found = f'has a single class, "{next(iter(names.values()))}"' if names else "has no images"
        raise UserError(f"{source} {found}; a task needs images of two classes or more")


def _refuse_unprintable(source: object, names: Iterable[str]) -> None:
    """Refuse names that would change the layout of logs, tables or terminals."""
    for name in names:
        if not name.strip():
            raise UserError(f"{source}: a class name is empty; it must be text")
        if not is_printable(name):
            raise UserError(
                f'{source}: the class name "{one_line(ascii(name)[1:-1])}" contains line breaks or '
                "control codes; a class name must be a single line of text"
            )
