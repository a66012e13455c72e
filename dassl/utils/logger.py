"""Copy a run's standard output to log.txt."""

import sys
import time
from pathlib import Path
from typing import Any, TextIO

from safeio.files import PathLike, prepare_output_dir


class Logger:
    """Standard output that also writes to a file; `close()` restores the previous stream.

    Progress bars are not in the file, because they write to standard error.
    """

    def __init__(self, fpath: PathLike | None = None) -> None:
        self.console: TextIO = sys.stdout
        self.path = Path(fpath) if fpath is not None else None
        self._file: TextIO | None = None
        if self.path is not None:
            # Line buffered, so that the file is complete after a crash.
            self._file = self.path.open("a", encoding="utf-8", buffering=1)

    def write(self, msg: str) -> int:
        """Write to the console and the file."""
        if self._file is not None:
            self._file.write(msg)
        return self.console.write(msg)

    def flush(self) -> None:
        """Flush the console and the file."""
        self.console.flush()
        if self._file is not None:
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        # isatty, encoding, fileno and so on
        return getattr(self.console, name)

    def close(self) -> None:
        """Close the file and restore the previous standard output."""
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
    """Copy standard output to a log file.

    Args:
        output: a file with suffix .txt or .log, or a folder, for its log.txt; None does nothing.
            If the file exists, the time is appended to the name of the new one.

    Returns:
        The logger, which is a context manager with `close()`; None without `output`.

    Raises:
        UserError: the folder is not writable.
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
