"""Check names against the available ones and suggest the most similar."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from safeio.errors import UserError
from safeio.untrusted import one_line

MIN_SIMILARITY = 0.5  # of a name to suggest


def get_most_similar_str_to_a_from_b(a: str, b: Iterable[str]) -> str:
    """Return the string of `b` that is most similar to `a`, ignoring case.

    Raises:
        ValueError: `b` is empty.
    """
    a = a[:200].lower()  # comparing longer strings would take long
    return max(b, key=lambda s: difflib.SequenceMatcher(None, a, s.lower()).ratio())


def choices(a: str, b: Sequence[str]) -> str:
    """Return the end of an error message: the name of `b` most similar to `a`, and all of `b`."""
    if not b:
        return "; no name is available"
    names = ", ".join(b)
    nearest = get_most_similar_str_to_a_from_b(a, b)
    if difflib.SequenceMatcher(None, a[:200].lower(), nearest.lower()).ratio() < MIN_SIMILARITY:
        return f"; available: {names}"
    return f'; did you mean "{nearest}"? Available: {names}'


def check_availability(requested: str, available: Sequence[str], setting: str = "") -> None:
    """Check that `requested`, the value of a setting, is one of `available`.

    Raises:
        UserError: it is not; the message suggests the most similar name.
    """
    if requested not in available:
        value = f'{setting} "{one_line(requested)}"'.lstrip()
        raise UserError(f"{value} is not available{choices(requested, available)}")


def tolist_if_not(x: Any) -> list[Any]:
    """Return a list unchanged and any other value as a list of one."""
    return x if isinstance(x, list) else [x]
