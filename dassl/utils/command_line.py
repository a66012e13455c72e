"""What the project's commands share: one sentence for a mistake, and the exit code."""

import argparse
import errno
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from safeio.errors import UserError
from safeio.untrusted import printable

from .. import startup

# What no mistake in our code causes: the disk is full, over quota, read-only, failing.
DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


class Parser(argparse.ArgumentParser):
    """Answers a wrong flag with one sentence, like any other mistake.

    Args:
        description: the command's docstring, shown as it is written.
    """

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            UserError: always.
        """
        raise UserError(f"{message}; --help lists the flags")


def exit_code(
    run: Callable[[argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
) -> int:
    """Run a command from its command line.

    Args:
        run: does what the arguments say; returns an exit code, or nothing for success.
        parser: reads the command line.
        argv: the command line; None for the process's own.

    Returns:
        What `run` returned, 2 after a mistake of the user, 1 when a training diverged or the
        system could not write or read a file (a full disk), 130 after Ctrl-C and 143 after SIGTERM;
        0 when whoever reads the output has seen enough (`| head`).
    """
    try:
        with _threads_leave_disks_to_us():
            startup.ready()
            code = run(parser.parse_args(argv)) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not _reader_has_left():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 0
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except FloatingPointError as error:  # the training diverged: no mistake in the command
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped by Ctrl-C", file=sys.stderr)
        return getattr(stop, "exit_code", 130)
    except Exception as error:
        reason = refused_by_system(error, DISK_TROUBLE)
        if not reason:
            raise
        _drop_unwritten_output()
        print(f"error: {printable(reason)}", file=sys.stderr)
        return 1


def refused_by_system(error: BaseException | None, kinds: Collection[int] = ()) -> str:
    """What the system would not do, such as writing to a full disk; "" if it is not to blame.

    Args:
        error: that, or what a library raised on top of it.
        kinds: numbers of `errno` that count; all, where none is given.
    """
    while error is not None:
        if isinstance(error, OSError) and error.strerror and (not kinds or error.errno in kinds):
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            advice = "; what was written before is whole, so free some space and start again"
            named = f": {error.filename}" if error.filename else ""
            return f"{error.strerror}{named}{advice * full}"
        error = error.__cause__ or error.__context__
    return ""


@contextmanager
def _threads_leave_disks_to_us() -> Iterator[None]:
    """Keep threads that write, such as TensorBoard's, from showing a stack trace for a full disk.

    Whoever gave them something to write is told as well, and that is what ends the command.
    """
    before = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if not refused_by_system(arguments.exc_value, DISK_TROUBLE):
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def _drop_unwritten_output() -> None:
    """Where standard output itself went to the full disk, the flush at exit would fail, too."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reader_has_left() -> bool:
    """Whether it is our own output that nobody reads any more, and no other pipe."""
    try:
        print(flush=True)  # a flush alone has nothing to write, and says nothing
    except BrokenPipeError:
        return True
    return False
