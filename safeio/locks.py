"""Locks between processes, which the system releases when their process ends.

The empty lock file stays: if it were removed, a third process could lock a new one while the second
still holds the old one. Without locks in the file system, the functions warn and lock nothing.
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
        path: the lock file; created, with its folder, if missing.
        waiting: message to print before waiting.

    Raises:
        OSError: the folder cannot be created.
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
    """Hold a lock, or yield False at once if another process holds it; see `exclusive`."""
    lock = _lock(path)
    acquired = _acquire(lock, timeout=0)
    try:
        yield acquired
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
