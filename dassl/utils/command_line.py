"""What the project's commands share: one sentence for a mistake, and the exit code."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from .errors import UserError
from .strangers import printable


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
    mistakes: tuple[type[Exception], ...] = (UserError,),
) -> int:
    """Run a command from its command line.

    Args:
        run: does what the arguments say; returns an exit code, or nothing for success.
        parser: reads the command line.
        argv: the command line; None for the process's own.
        mistakes: exceptions whose text is one sentence for the user.

    Returns:
        What `run` returned, 2 after a mistake of the user, 1 when a training diverged; 0 when
        whoever reads the output has seen enough (`| head`).
    """
    try:
        code = run(parser.parse_args(argv)) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not _reader_has_left():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 0
    except mistakes as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except FloatingPointError as error:  # the training diverged: no mistake in the command
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1


def _reader_has_left() -> bool:
    """Whether it is our own output that nobody reads any more, and no other pipe."""
    try:
        print(flush=True)  # a flush alone has nothing to write, and says nothing
    except BrokenPipeError:
        return True
    return False
