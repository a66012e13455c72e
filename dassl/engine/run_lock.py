"""Lock on a run's folder, so that only one process writes to it."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from safeio.errors import UserError
from safeio.files import PathLike, read_json, write_json
from safeio.locks import exclusive

from ..utils.checkpoint_folder import POINTER

LOCK = ".run.lock"
HOLDER = ".run.json"
# The loader processes of a killed run hold its lock until they notice, within 5 seconds.
LOCK_TIMEOUT = 15.0


@contextmanager
def lock_folder(directory: PathLike) -> Iterator[None]:
    """Lock an existing run's folder for this process; the lock ends with the process.

    Temporary files of killed processes are removed. If the file system does not support locks, a
    warning is printed and the folder is not locked.

    Raises:
        UserError: another process holds the lock; the message names it, its host and start time.
    """
    folder = Path(directory)
    with ExitStack() as stack:
        end = time.monotonic() + LOCK_TIMEOUT
        while not stack.enter_context(exclusive(folder / LOCK)):
            holder = _holder(folder)
            if not _has_died(holder) or time.monotonic() > end:
                process = "another process"
                if {"host", "pid", "since"} <= set(holder):
                    process = "process {pid} on {host}, since {since}".format(**holder)
                raise UserError(
                    f"{folder} is in use by {process}; wait for it, stop it or choose another "
                    "--output-dir"
                )
            time.sleep(0.1)
        _remove_unfinished(folder)
        host, since = socket.gethostname(), datetime.now().astimezone()
        holder = {"host": host, "pid": os.getpid(), "since": since.isoformat(" ", "seconds")}
        try:
            write_json(holder, folder / HOLDER)
            yield
        finally:
            with suppress(OSError):  # for example, the disk was removed
                (folder / HOLDER).unlink(missing_ok=True)


def _holder(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        content = read_json(folder / HOLDER)
        if isinstance(content, dict):
            return content
    return {}


def _has_died(holder: dict[str, Any]) -> bool:
    """Return whether the process has certainly ended, so that its lock will soon be free."""
    pid = holder.get("pid")
    if os.name != "posix":  # elsewhere, os.kill(pid, 0) ends the process
        return False
    if holder.get("host") != socket.gethostname() or not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError) as error:
        return isinstance(error, ProcessLookupError)
    return False


def _remove_unfinished(folder: Path) -> None:
    # Only these names and levels: deeper folders may belong to other, active runs.
    for pattern in (".*.tmp", "*/.model*.pth.tar*.tmp", f"*/.{POINTER}.*.tmp"):
        for leftover in folder.glob(pattern):
            with suppress(OSError):
                leftover.unlink(missing_ok=True)
