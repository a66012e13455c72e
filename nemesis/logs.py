"""The printed lines of a run as records of the logger "nemesis"."""

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

LOGGER = logging.getLogger("nemesis")
_WARNING = "Warning: "


class _LogLines(io.TextIOBase):
    """Text stream that logs its lines: warnings at level WARNING, all others at INFO."""

    def __init__(self) -> None:
        self._unfinished = ""

    def write(self, text: str) -> int:
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        for line in filter(None, lines):
            warns = line.startswith(_WARNING)
            LOGGER.log(logging.WARNING if warns else logging.INFO, line.removeprefix(_WARNING))
        return len(text)


@contextmanager
def logged(verbose: bool = False) -> Iterator[None]:
    """Log what is printed within this context; with `verbose`, print it.

    A run's log.txt contains the lines in both cases, since its writer copies standard output.
    """
    if verbose:
        yield
        return
    with redirect_stdout(_LogLines()):
        yield


def hides_progress() -> bool | None:
    """Return tqdm's `disable`: None shows the bar in a terminal only, False also in a notebook."""
    return False if type(sys.stderr).__module__.startswith("ipykernel.") else None
