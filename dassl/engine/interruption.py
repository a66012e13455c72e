"""Handle Ctrl-C and SIGTERM so that an interrupted run can resume.

Outside of an epoch, a signal stops the run immediately. Within an epoch, it is deferred until the
trainer calls `check` between two batches, where the state is complete.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal stops the run, without saving if the user has repeated it.

    Attributes:
        saved: the saved progress, such as "epoch 2 of 3"; "" if nothing is saved.
        command: the command that resumes the run; "" if unknown.
    """

    def __init__(self, number: int, repeated: bool = False) -> None:
        self.number = number
        self.repeated = repeated
        self.saved = ""
        self.command = ""

    @property
    def exit_code(self) -> int:
        """The shell's exit code of a process ended by this signal: 130 or 143."""
        return 128 + self.number

    def __str__(self) -> str:
        """One sentence for the user: signal, saved progress and the command to resume."""
        where = f"after {self.saved}, which is saved" if self.saved else "before the first save"
        how = f"resume with: {self.command}" if self.command else "start it again to resume"
        return f"stopped by {signal.Signals(self.number).name} {where}; {how}"


class _Pending:
    """The latest received signal that has not been handled."""

    number: int | None = None
    deferred = 0  # number of open `deferred` contexts


_pending = _Pending()


def _receive(number: int, frame: FrameType | None) -> None:
    del frame
    repeated, _pending.number = _pending.number is not None, number
    # Schedulers send SIGTERM to a process and to its parent, which forwards it: ignore the second.
    if (repeated and number == signal.SIGTERM) or (_pending.deferred and not repeated):
        return
    raise Interrupted(number, repeated)


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Make Ctrl-C and SIGTERM raise `Interrupted` within this context; see also `deferred`.

    Ignored signals stay ignored. Does nothing outside of the main thread, because Python delivers
    signals only there.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        before = {n: h for n, h in handlers.items() if h is not signal.SIG_IGN and h != _receive}
    for number in before:
        signal.signal(number, _receive)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if before:
            _pending.number = None


@contextmanager
def deferred() -> Iterator[None]:
    """Defer signals within this context until `check` is called."""
    _pending.deferred += 1
    try:
        yield
    finally:
        _pending.deferred -= 1


def requested() -> bool:
    """Return whether a signal is pending."""
    return _pending.number is not None


def check() -> None:
    """Raise `Interrupted` if a signal is pending."""
    if _pending.number is not None:
        raise Interrupted(_pending.number)
