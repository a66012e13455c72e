"""Copies what a run prints into log.txt."""

import sys
import time
from pathlib import Path
from typing import Any, TextIO

from safeio.files import PathLike, prepare_output_dir


class Logger:
    """Standard output that also goes to a file, until `close()` puts the old one back.

    Progress bars write to standard error and so never reach the file.
    """

    def __init__(self, fpath: PathLike | None = None) -> None:
        self.console: TextIO = sys.stdout
        self.path = Path(fpath) if fpath is not None else None
        self._file: TextIO | None = None
        if self.path is not None:
            # Line buffered: what was printed before a crash is in the file.
            self._file = self.path.open("a", encoding="utf-8", buffering=1)

    def write(self, msg: str) -> int:
        """Write to the console and the file."""
        if self._file is not None:
            self._file.write(msg)
        return self.console.write(msg)

    def flush(self) -> None:
        """Flush both."""
        self.console.flush()
        if self._file is not None:
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        # isatty, encoding, fileno, ...: in everything else this is the console.
        return getattr(self.console, name)

    def close(self) -> None:
        """Close the file and put the former standard output back."""
        if sys.stdout is self:
            sys.stdout = self.console
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def setup_logger(output: PathLike | None = None) -> Logger | None:
    """Send standard output to a log file as well.

    Args:
        output: a folder (then its log.txt) or a file that ends in .txt or .log; None does nothing.
            An older log is kept: the new one gets the time behind its name.

    Returns:
        The logger: a context manager, or call its `close()`. None when there is no output.

    Raises:
        UserError: the folder cannot be written to.
    """
    if output is None:
        return None
    path = Path(output)
    if path.suffix not in (".txt", ".log"):
        path = path / "log.txt"
    prepare_output_dir(path.parent)
    if path.exists():
        path = path.with_name(path.name + time.strftime("-%Y-%m-%d-%H-%M-%S"))
    logger = Logger(path)
    sys.stdout = logger
    return logger
