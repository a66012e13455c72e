"""Names that were given, and those that there are."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from safeio.errors import UserError
from safeio.untrusted import one_line

ALIKE = 0.5  # how alike a name is, at least, that somebody may have meant


def get_most_similar_str_to_a_from_b(a: str, b: Iterable[str]) -> str:
    """Return the string of `b` that is most similar to `a`, whatever the case.

    Raises:
        ValueError: `b` is empty.
    """
    a = a[:200].lower()  # what is longer is like nothing, and takes long to compare
    return max(b, key=lambda s: difflib.SequenceMatcher(None, a, s.lower()).ratio())


def choices(a: str, b: Sequence[str]) -> str:
    """The end of a sentence about an unknown name: the one that is like it, and all that are known.

    Args:
        a: the unknown name.
        b: the known ones.
    """
    if not b:
        return "; there is none"
    names = ", ".join(b)
    nearest = get_most_similar_str_to_a_from_b(a, b)
    if difflib.SequenceMatcher(None, a[:200].lower(), nearest.lower()).ratio() < ALIKE:
        return f"; available: {names}"
    return f'; did you mean "{nearest}"? Available: {names}'


def check_availability(requested: str, available: Sequence[str]) -> None:
    """Make sure that `requested` is one of `available`.

    Raises:
        UserError: it is not; names the nearest.
    """
    if requested not in available:
        raise UserError(f'"{one_line(requested)}" is not available{choices(requested, available)}')


def tolist_if_not(x: Any) -> list[Any]:
    """Return a list as it is and anything else as a list of one."""
    return x if isinstance(x, list) else [x]
