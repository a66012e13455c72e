"""Locks between processes, which end with the process that holds them.

The empty lock file stays: if it were removed, a third process could lock a new one while the second
still holds the old one. Where the file system has no locks, a warning says so and nothing is held.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def exclusive(path: Path, waiting: str) -> Iterator[None]:
    """Hold a lock; wait while another process holds it.

    Args:
        path: the lock file; made, with its folder, if missing.
        waiting: printed before a wait.

    Raises:
        OSError: its folder cannot be made.
    """
    lock = _lock(path)
    if not _acquire(lock, timeout=0):
        print(waiting)
        _acquire(lock, timeout=-1)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def try_exclusive(path: Path) -> Iterator[bool]:
    """Hold a lock, or yield False at once when another process holds it; see `exclusive`."""
    lock = _lock(path)
    free = _acquire(lock, timeout=0)
    try:
        yield free
    finally:
        lock.release()


def _lock(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path, thread_local=False)  # another thread may release it


def _acquire(lock: FileLock, timeout: float) -> bool:
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        return False
    except (NotImplementedError, OSError) as error:
        folder = Path(lock.lock_file).parent
        print(f"Warning: {folder} cannot be locked against a second run ({error})", file=sys.stderr)
    return True
