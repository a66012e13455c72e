"""What a loader's process does about signals."""

import signal

GRACE_SECONDS = 20


def outlive_signals(worker: int) -> None:
    """Let a loader's process leave signals to its trainer, which ends it when it has saved.

    Terminals and schedulers send them to all processes of a run, and without its loader a trainer
    could not end its batch.

    Args:
        worker: its number, which does not matter.
    """
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_SECONDS))
