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
def exclusive(path: Path, waiting: str = "") -> Iterator[bool]:
    """Hold a lock, and yield whether it is held.

    Args:
        path: the lock file; created, with its folder, if missing.
        waiting: message to print before waiting for another process that holds the lock; without
            a message, yield False at once.

    Raises:
        OSError: the folder cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, thread_local=False)  # another thread may release it
    held = _acquire(lock, timeout=0)
    if not held and waiting:
        print(waiting)
        held = _acquire(lock, timeout=-1)
    try:
        yield held
    finally:
        lock.release()


def _acquire(lock: FileLock, timeout: float) -> bool:
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        return False
    except (NotImplementedError, OSError) as error:
        folder = Path(lock.lock_file).parent
        print(f"Warning: {folder} cannot be locked against a second run ({error})", file=sys.stderr)
    return True
