"""Cache for loaded models, splits and features that a worker process reuses across runs.

The cache is active within `reuse_loaded()`. Cached values must not be modified. Their keys must
contain everything that determines the value, including the state of its files.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from safeio.files import PathLike

T = TypeVar("T")

# Maximum number of values of each kind; the least recently used one is removed first.
LIMITS = {"clip": 2, "split": 16, "features": 64, "views": 128, "digest": 64}

_cache: dict[str, OrderedDict[Hashable, Any]] | None = None


@contextmanager
def reuse_loaded() -> Iterator[None]:
    """Activate the cache within this context; the outermost context empties it at its end."""
    global _cache
    outer = _cache
    _cache = {kind: OrderedDict() for kind in LIMITS} if outer is None else outer
    try:
        yield
    finally:
        _cache = outer


def cached(kind: str, key: Hashable, make: Callable[[], T]) -> T:
    """Return the cached value of a key, or make and cache it.

    Args:
        kind: one of `LIMITS`.
        key: everything that determines the value.
        make: creates the value, which must not be modified; None is not cached.
    """
    if _cache is None:
        return make()
    values = _cache[kind]
    if key in values:
        values.move_to_end(key)
        return values[key]
    value = make()
    if value is not None:
        values[key] = value
        if len(values) > LIMITS[kind]:
            values.popitem(last=False)
    return value


def is_reusing() -> bool:
    """Return whether the cache is active: this process trains many runs."""
    return _cache is not None


def file_state(path: PathLike) -> tuple[str, int, int, int] | None:
    """Return path, size, time and inode, which change if a file is rewritten; None if missing."""
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return str(Path(path).absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ino
