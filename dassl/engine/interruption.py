"""Ctrl-C and SIGTERM: a run ends where it can resume.

A signal ends a run at once wherever nothing would be lost. While a trainer is within an epoch it
waits until the trainer calls `check` between two batches, when the state of everything is known.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal stops the run.

    Args:
        number: of the signal.
        hurry: the second one, so that there is no time to save.
    """

    def __init__(self, number: int, hurry: bool = False) -> None:
        self.number = number
        self.hurry = hurry
        self.saved = ""
        self.command = ""

    @property
    def exit_code(self) -> int:
        """What shells give to a process that a signal has ended: 130 or 143."""
        return 128 + self.number

    def __str__(self) -> str:
        """One sentence for the user: what stopped it, where, and the command that resumes it."""
        where = f"after {self.saved}, which is saved" if self.saved else "with nothing to save"
        how = f": {self.command}" if self.command else " by starting it again"
        return f"stopped by {signal.Signals(self.number).name} {where}; go on{how}"


class _Wish:
    """The latest signal of this process that waits."""

    number: int | None = None
    deferred = 0  # how many trainers are within an epoch


_wish = _Wish()


def _receive(number: int, frame: FrameType | None) -> None:
    del frame
    again, _wish.number = _wish.number is not None, number
    # Schedulers send SIGTERM to a process and to its parent, which hands it on: not a hurry.
    if (again and number == signal.SIGTERM) or (_wish.deferred and not again):
        return
    raise Interrupted(number, hurry=again)


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Within this context Ctrl-C and SIGTERM raise `Interrupted`, which `deferred` puts off.

    Signals that are ignored stay so. Does nothing outside of the main thread, which alone gets
    signals.
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
            _wish.number = None


@contextmanager
def deferred() -> Iterator[None]:
    """Within this context a signal waits for `check`."""
    _wish.deferred += 1
    try:
        yield
    finally:
        _wish.deferred -= 1


def requested() -> bool:
    """Whether a signal waits."""
    return _wish.number is not None


def check() -> None:
    """Raise `Interrupted` if a signal waits."""
    if _wish.number is not None:
        raise Interrupted(_wish.number)
