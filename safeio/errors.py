"""The exception for errors that the user can fix."""


class UserError(Exception):
    """An error that the user can fix, in one sentence.

    The sentence states what was given, what is accepted and what to do. The command line prints it
    without a stack trace and exits with code 2.
    """

    def __init__(self, message: str) -> None:
        name = type(self).__name__
        if message.startswith(f"Caught {name} in DataLoader worker"):
            # PyTorch re-raises a worker's exception with the worker's stack trace as its message.
            message = message.rstrip().rpartition(f"{name}: ")[2]
        super().__init__(message)
