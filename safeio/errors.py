"""The one exception that means "the user asked for something that cannot be done"."""

_FROM_WORKER = "Caught UserError in DataLoader worker"


class UserError(Exception):
    """A mistake of the user, said in one sentence.

    It names what was given, what is accepted and what to do. The command line prints it without
    a stack trace and exits with 2.
    """

    def __init__(self, message: str) -> None:
        if message.startswith(_FROM_WORKER):
            # PyTorch re-raises a worker's exception with the worker's stack trace as its message.
            message = message.rstrip().rpartition("UserError: ")[2]
        super().__init__(message)
