"""The files of a run's folder: which there are, what they say, how they are removed."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from safeio.checksums import DamagedFile, read_verified_json, without_checksum
from safeio.files import PathLike
from safeio.untrusted import parse_json

from ..utils.checkpoint_folder import DAMAGED, POINTER
from .run_lock import HOLDER, LOCK

HISTORY = "history.jsonl"
RESULTS = "results.json"
CONFIG = "config.yaml"
TENSORBOARD = "tensorboard"
RESUME = "resume.pth.tar"
LOG = "log.txt"

CHECKPOINTS = (RESUME, "*/model*.pth.tar*", f"*/{POINTER}")
# Every other file that a run, or a command about a run, writes into its folder.
OUTPUTS = (
    RESULTS,
    "prompt.safetensors",
    *("per_class.csv", "cmat.json", "cmat.csv", "cmat.png"),
    *("corruption.json", "corruption-*.json", "classifier.safetensors"),
    f"{TENSORBOARD}/events.out.tfevents.*",
    HISTORY,
)


def run_files(directory: PathLike) -> list[Path]:
    """List the files of the run in a folder, in the order in which they are to be removed.

    The results come first: a folder that lacks anything is no finished run. The configuration comes
    last: as long as a checkpoint is left, it says whose that is. Logs, damaged
    checkpoints that were renamed, and files that are not known to be a run's are not listed.
    """
    root = Path(directory)
    patterns = (*OUTPUTS, *CHECKPOINTS, CONFIG)
    found = [path for pattern in patterns for path in sorted(root.glob(pattern))]
    return [path for path in found if path.suffix != DAMAGED and not path.is_dir()]


def remove_run_files(directory: PathLike, files: Sequence[Path]) -> None:
    """Remove files that `run_files` listed, and the folders below `directory` that this empties."""
    root = Path(directory)
    for path in files:
        path.unlink(missing_ok=True)
        if path.parent != root and path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()


def clear_run(directory: PathLike) -> None:
    """Remove the run in a folder; see `run_files` for what stays."""
    remove_run_files(directory, run_files(directory))


def has_checkpoints(directory: PathLike) -> bool:
    """Whether a folder holds anything that a run could resume from."""
    root = Path(directory)
    found = (path for pattern in CHECKPOINTS[:2] for path in root.glob(pattern))
    return any(path.suffix != DAMAGED for path in found)


def read_history(directory: PathLike) -> list[dict[str, Any]]:
    """Read a run's history.

    A line that is damaged, or that a crash has cut off, is named in a printed warning and left out.
    """
    path = Path(directory) / HISTORY
    if not path.is_file():
        return []
    entries = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = without_checksum(parse_json(line))
            if not isinstance(entry, dict):
                raise ValueError("it is no JSON object")
            entries.append(entry)
        except ValueError:
            print(f"Warning: line {number} of {path} is damaged and left out")
    return entries


def finished_run(directory: PathLike) -> dict[str, Any] | None:
    """Return the results of a run that came to its end in this folder, or None.

    Results that are damaged do not count; `results_fault` says what is wrong with them.
    """
    try:
        content = read_verified_json(Path(directory) / RESULTS)
    except (OSError, DamagedFile):
        return None
    if isinstance(content, dict) and content.get("status") == "finished":
        return content
    return None


def results_fault(directory: PathLike) -> str:
    """Name a damaged results.json and what is wrong with it; empty where there is none."""
    try:
        read_verified_json(Path(directory) / RESULTS)
    except OSError:
        return ""
    except DamagedFile as error:
        return str(error)
    return ""


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
        return list(self.directory.glob(f"{LOG}*"))

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
