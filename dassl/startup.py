"""Ctrl-C in the seconds while a command imports PyTorch and the rest.

An exception would be raised somewhere within other people's packages, which may even swallow it;
so the process ends at once, quietly, as long as there is nothing to save. This module imports
nothing that takes time.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED = 130


def _end(number: int, frame: FrameType | None) -> None:
    del number, frame
    os.write(2, b"stopped by Ctrl-C\n")
    os._exit(STOPPED)


_COMMANDS = ("__main__", "__mp_main__")
_is_command = False  # whether this process is one of our commands


@contextmanager
def importing(name: str) -> Iterator[None]:
    """Around a command's imports: Ctrl-C ends the process without a stack trace.

    It still does afterwards, until `ready`, and in the processes that a command starts (which
    import it as `__mp_main__`) between their runs. Where Ctrl-C is ignored, it stays so.

    Args:
        name: the module's `__name__`; nothing happens where it is imported by another.
    """
    global _is_command
    _is_command = _is_command or name in _COMMANDS
    if _is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    yield


def ready() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)
