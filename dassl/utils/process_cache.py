"""What a process keeps loaded from one run to the next, when it is told to.

A worker that trains run after run would read the same weights, splits and features every time.
Within `reuse_loaded()` they are made once. Only what no run changes may be kept, under a key of all
that decides about it, the state of its files included.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from safeio.files import PathLike

T = TypeVar("T")

# How many of a kind are kept: the oldest goes when another comes.
LIMITS = {"clip": 2, "split": 16, "features": 64}

_kept: dict[str, OrderedDict[Hashable, Any]] | None = None


@contextmanager
def reuse_loaded() -> Iterator[None]:
    """Within this context `cached` remembers; at its end everything is forgotten."""
    global _kept
    outer = _kept
    _kept = {kind: OrderedDict() for kind in LIMITS} if outer is None else outer
    try:
        yield
    finally:
        _kept = outer


def cached(kind: str, key: Hashable, make: Callable[[], T]) -> T:
    """Return what an earlier call with this key made, or make it.

    Args:
        kind: one of `LIMITS`.
        key: all that decides about the value.
        make: its value must never be changed by anyone. None is not kept.
    """
    if _kept is None:
        return make()
    values = _kept[kind]
    if key in values:
        values.move_to_end(key)
        return values[key]
    value = make()
    if value is not None:
        values[key] = value
        if len(values) > LIMITS[kind]:
            values.popitem(last=False)
    return value


def file_state(path: PathLike) -> tuple[str, int, int, int] | None:
    """What changes when a file is written again; None where there is no file."""
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return str(Path(path).absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ino
