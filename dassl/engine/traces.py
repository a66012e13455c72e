"""A mistake leaves nothing behind: no folder, no log."""

from pathlib import Path
from types import TracebackType

from .run_lock import HOLDER, LOCK

_LOG = "log.txt"


class Traces:
    """Within this context, what a run writes before it has begun is removed if it fails.

    Args:
        directory: the run's folder; it need not exist.

    Attributes:
        begun: to be set when the run itself writes: from then on everything stays.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.begun = False
        self._missing = [path for path in (directory, *directory.parents) if not path.exists()]
        self._before = set(self._logs())

    def _logs(self) -> list[Path]:
        return list(self.directory.glob(f"{_LOG}*"))

    def __enter__(self) -> "Traces":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not isinstance(error, Exception) or self.begun:
            return
        for log in set(self._logs()) - self._before:
            log.unlink(missing_ok=True)
        for folder in self._missing:
            for name in (LOCK, HOLDER):
                (folder / name).unlink(missing_ok=True)
            if not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()
