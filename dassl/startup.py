"""Handle Ctrl-C while a command imports PyTorch and other packages.

KeyboardInterrupt would be raised within third-party packages, which may even suppress it. Since
there is nothing to save yet, the process ends immediately instead. This module has only fast
imports.
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
_is_command = False  # whether this process runs a command of this project


@contextmanager
def importing(name: str) -> Iterator[None]:
    """Make Ctrl-C end the process without a stack trace, for a command's imports.

    This lasts until `ready` is called. It also applies between runs in worker processes, which
    import the command as `__mp_main__`. If Ctrl-C is ignored, it stays ignored. Nothing changes if
    another module imports the command, so that `name`, its `__name__`, is another.
    """
    global _is_command
    _is_command = _is_command or name in _COMMANDS
    if _is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    yield


def ready() -> None:
    """Make Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)
