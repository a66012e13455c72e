"""Argument parser, error messages and exit codes of all commands."""

import argparse
import difflib
import errno
import logging
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, NoReturn

from safeio.errors import UserError
from safeio.untrusted import one_line, printable

from .. import startup

# Errors of the disk rather than of the code: full, over quota, read-only, failing.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)

# An empty one, as of an unset shell variable, would be the working folder.
FOLDER_FLAGS = ("--output-dir", "--root")


class Parser(argparse.ArgumentParser):
    """Argument parser that raises UserError for a wrong flag.

    Args:
        description: the command's docstring; --help prints it without reformatting.
        verb: of `python -m nemesis VERB`; None for a file such as train.py.
    """

    def __init__(self, description: str | None, verb: str | None = None) -> None:
        super().__init__(
            f"python -m nemesis {verb}" if verb else None,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse a command line; see `argparse`.

        Raises:
            UserError: a flag is wrong; the message suggests a similar one.
        """
        words = sys.argv[1:] if args is None else args
        for word, following in zip_longest(words, words[1:]):
            flag, equals, value = word.partition("=")
            if flag in FOLDER_FLAGS and (value if equals else following) == "":
                raise UserError(f"{flag} is empty; give a folder (. is this one)")
        arguments, rest = self.parse_known_args(args, namespace)
        if rest:
            known = list(self._option_string_actions)
            near = difflib.get_close_matches(rest[0].partition("=")[0], known, n=1, cutoff=0.7)
            hint = f"did you mean {near[0]}?" if near else "--help lists the flags"
            raise UserError(f"{one_line(rest[0])} is not a flag of this command; {hint}")
        return arguments

    def error(self, message: str) -> NoReturn:
        """Raise a UserError with the message of argparse."""
        raise UserError(f"{message}; --help lists the flags")


def add_set_flag(parser: argparse.ArgumentParser, text: str) -> None:
    """Add --set KEY VALUE, which may be repeated."""
    pair = ("KEY", "VALUE")
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=pair, help=text)


def exit_code(
    run: Callable[[argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
) -> int:
    """Run a command and return its exit code.

    Args:
        run: called with the parsed arguments; returns an exit code, or None for success.
        parser: parses the command line.
        argv: the command line; default sys.argv[1:].

    Returns:
        The result of `run`; 2 after a UserError, 1 if a training diverged or a disk failed (such
        as a full disk), 130 after Ctrl-C, 143 after SIGTERM, and 0 if the reader of the output
        has closed the pipe (`| head`).
    """
    try:
        with _no_traceback_for_disk_errors_in_threads(), _logged_warnings_on_stderr():
            startup.ready()
            code = run(parser.parse_args(argv)) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not _stdout_is_closed():
            raise
        _drop_unwritten_output()
        return 0
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except FloatingPointError as error:  # the training diverged
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped by Ctrl-C", file=sys.stderr)
        return getattr(stop, "exit_code", 130)
    except Exception as error:
        reason = refused_by_system(error, DISK_ERRORS)
        if not reason:
            raise
        _drop_unwritten_output()
        print(f"error: {printable(reason)}", file=sys.stderr)
        return 1


def refused_by_system(error: BaseException | None, kinds: Collection[int] = ()) -> str:
    """Return the message of the OSError in an error's chain of causes; "" if it has none.

    Args:
        error: the error that a command caught.
        kinds: accepted `errno` numbers; default all.
    """
    while error is not None:
        if isinstance(error, OSError) and error.strerror and (not kinds or error.errno in kinds):
            message = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                message += "; files written before are complete, so free some space and start again"
            return message
        error = error.__cause__ or error.__context__
    return ""


class _Warnings(logging.StreamHandler[Any]):
    """Prints what is logged at level WARNING or above to standard error."""

    def __init__(self) -> None:
        super().__init__()
        self.setLevel(logging.WARNING)
        self.setFormatter(logging.Formatter("Warning: %(message)s"))


@contextmanager
def _logged_warnings_on_stderr() -> Iterator[None]:
    """Print warnings of the library in this context, once if a command calls another."""
    root, handler = logging.getLogger(), _Warnings()
    if not any(isinstance(other, _Warnings) for other in root.handlers):
        root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


@contextmanager
def _no_traceback_for_disk_errors_in_threads() -> Iterator[None]:
    """Print no traceback if a thread, such as TensorBoard's writer, meets a full disk.

    The main thread gets the error, too, and ends the command with one sentence.
    """
    before = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if not refused_by_system(arguments.exc_value, DISK_ERRORS):
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def _drop_unwritten_output() -> None:
    """Drop buffered output that cannot be written, because the flush at exit would fail."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stdout_is_closed() -> bool:
    """Return whether the broken pipe is standard output and not another pipe."""
    try:
        print(flush=True)  # a flush of an empty buffer would raise no error
    except BrokenPipeError:
        return True
    return False
