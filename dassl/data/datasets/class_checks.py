"""What labels and class names have to be, so that a task can be made of them."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from safeio.errors import UserError
from safeio.untrusted import is_printable, one_line

from .splits import Split

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")


def are_numbers(names: Iterable[str]) -> bool:
    """Whether all names are numbers, which say nothing to CLIP: 0, 1, 10, 007, 3.0, -1."""
    found = list(names)
    return bool(found) and all(map(_NUMBER.fullmatch, found))


def in_order(names: Iterable[str]) -> list[str]:
    """Folders or labels in the order of their classes: 0, 1, 2, 10; others as text.

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
                f'The classes "{one}" and "{other}" are the same number; give all images of a '
                "class one label"
            )
    return ordered


def warn_of_numbers(source: object, names: Sequence[str], advice: str = "") -> None:
    """Print a warning where the class names are numbers.

    Args:
        source: the dataset or its file.
        names: the class names.
        advice: what gives the classes their names.
    """
    if are_numbers(names):
        print(
            f"Warning: the classes of {source} are numbers, so that prompts read "
            f'"a photo of a {names[0]}."{advice}'
        )


def check_classes(split: Split, source: object) -> list[str]:
    """Make sure that labels and class names belong together, and that the names are words.

    Args:
        split: all images of a dataset.
        source: where it comes from, for the messages.

    Returns:
        The names that several classes have, such as two of ImageNet's: no prompt can tell them
        apart, but papers count them as they are.

    Raises:
        UserError: a name is empty or holds line breaks or control codes, a label has two names,
            labels are not 0, 1, 2, ... without a gap, a class has no training images while others
            do, or there are fewer than two classes.
    """
    known = {part: {(d.label, d.classname) for d in items} for part, items in split.items()}
    pairs = sorted(set[tuple[int, str]]().union(*known.values()))
    _refuse_unprintable(source, [name for _, name in pairs])
    for (label, name), (following, other) in itertools.pairwise(pairs):
        if label == following:
            raise UserError(f'{source}: the label {label} is called both "{name}" and "{other}"')
    for expected, (label, _) in enumerate(pairs):
        if label != expected:
            raise UserError(
                f"{source}: no image has the label {expected}, but others have {label}; labels "
                "have to be 0, 1, 2, ... without a gap"
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
    """Refuse a task whose accuracy would always be 100%.

    Args:
        source: the dataset or its file, for the message.
        names: label -> class name.

    Raises:
        UserError: there is one class, or none.
    """
    if len(names) < 2:
        found = f'has a single class, "{next(iter(names.values()))}"' if names else "has no images"
        raise UserError(f"{source} {found}; a task needs images of two classes or more")


def _refuse_unprintable(source: object, names: Iterable[str]) -> None:
    """Names go into prompts, logs, tables and terminals; none shall be able to act there."""
    for name in names:
        if not name.strip():
            raise UserError(f"{source}: a class name is empty; it has to be a text")
        if not is_printable(name):
            raise UserError(
                f'{source}: the class name "{one_line(ascii(name)[1:-1])}" holds line breaks or '
                "control codes; a class name is a text of one line"
            )
