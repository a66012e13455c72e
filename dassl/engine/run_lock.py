"""A run's folder belongs to one process at a time."""

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
from safeio.locks import try_exclusive

from ..utils.checkpoint_folder import POINTER

LOCK = ".run.lock"
HOLDER = ".run.json"
# A killed process lets go when its loader's processes have noticed, which look every 5 seconds.
PATIENCE = 15.0


@contextmanager
def run_folder(directory: PathLike) -> Iterator[None]:
    """Hold a run's folder for this process; one that dies lets go of it.

    What a killed process was writing when it died is removed. Where the file system has no locks,
    a warning says so and nothing is held.

    Args:
        directory: exists.

    Raises:
        UserError: another process has it; says which, where and since when.
    """
    folder = Path(directory)
    with ExitStack() as stack:
        end = time.monotonic() + PATIENCE
        while not stack.enter_context(try_exclusive(folder / LOCK)):
            holder = _holder(folder)
            if not _has_died(holder) or time.monotonic() > end:
                raise UserError(_refusal(folder, holder))
            time.sleep(0.1)
        _remove_unfinished(folder)
        host, since = socket.gethostname(), datetime.now().astimezone()
        holder = {"host": host, "pid": os.getpid(), "since": since.isoformat(" ", "seconds")}
        try:
            write_json(holder, folder / HOLDER)
            yield
        finally:
            with suppress(OSError):  # such as a disk that is no longer there
                (folder / HOLDER).unlink(missing_ok=True)


def _holder(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        content = read_json(folder / HOLDER)
        if isinstance(content, dict):
            return content
    return {}


def _has_died(holder: dict[str, Any]) -> bool:
    """Whether the process is known to have ended, so that its lock is about to be free."""
    pid = holder.get("pid")
    if os.name != "posix":  # where signal 0 ends the process
        return False
    if holder.get("host") != socket.gethostname() or not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _refusal(folder: Path, holder: dict[str, Any]) -> str:
    who = "another process"
    if {"host", "pid", "since"} <= set(holder):
        who = "process {pid} on {host}, since {since}".format(**holder)
    return (
        f"{folder} is in use by {who}; wait for its end or stop it, or choose another --output-dir"
    )


def _remove_unfinished(folder: Path) -> None:
    # No deeper, and by name: below a folder of many runs are those of others, which are at work.
    for pattern in (".*.tmp", "*/.model*.pth.tar*.tmp", f"*/.{POINTER}.*.tmp"):
        for leftover in folder.glob(pattern):
            with suppress(OSError):
                leftover.unlink(missing_ok=True)
