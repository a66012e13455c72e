"""The files of a run's folder: names, reading and removal."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from safeio.checksums import DamagedFile, read_verified_json, without_checksum
from safeio.files import PathLike
from safeio.untrusted import parse_json

from ..utils.checkpoint_folder import DAMAGED_SUFFIX, POINTER
from .run_lock import HOLDER, LOCK

HISTORY = "history.jsonl"
RESULTS = "results.json"
CONFIG = "config.yaml"
TENSORBOARD = "tensorboard"
RESUME = "resume.pth.tar"
LOG = "log.txt"

CHECKPOINTS = (RESUME, "*/model*.pth.tar*", f"*/{POINTER}")
# All other files that a run or an analysis command writes into the folder.
OUTPUTS = (
    RESULTS,
    *("prompt.safetensors", "adapters.safetensors", "key_cache.safetensors"),
    *("per_class.csv", "cmat.json", "cmat.csv", "cmat.png"),
    *("corruption.json", "corruption-*.json", "classifier.safetensors"),
    f"{TENSORBOARD}/events.out.tfevents.*",
    HISTORY,
)


def run_files(directory: PathLike) -> list[Path]:
    """List the files of the run in a folder in the order of their removal.

    The results come first, so that an incompletely removed run does not count as finished. The
    configuration comes last, because it identifies the remaining checkpoints. Logs, quarantined
    files and unknown files are not listed.
    """
    root = Path(directory)
    patterns = (*OUTPUTS, *CHECKPOINTS, CONFIG)
    found = [path for pattern in patterns for path in sorted(root.glob(pattern))]
    return [path for path in found if path.suffix != DAMAGED_SUFFIX and not path.is_dir()]


def remove_run_files(directory: PathLike, files: Sequence[Path]) -> None:
    """Remove files listed by `run_files` and the subfolders that become empty."""
    root = Path(directory)
    for path in files:
        path.unlink(missing_ok=True)
        if path.parent != root and path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()


def clear_run(directory: PathLike) -> None:
    """Remove all files listed by `run_files`."""
    remove_run_files(directory, run_files(directory))


def has_checkpoints(directory: PathLike) -> bool:
    """Return whether a folder contains a checkpoint."""
    root = Path(directory)
    found = (path for pattern in CHECKPOINTS[:2] for path in root.glob(pattern))
    return any(path.suffix != DAMAGED_SUFFIX for path in found)


def read_history(directory: PathLike) -> list[dict[str, Any]]:
    """Read history.jsonl; skip damaged and truncated lines with a printed warning."""
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
                raise ValueError("not a JSON object")
            entries.append(entry)
        except ValueError:
            print(f"Warning: line {number} of {path} is damaged and skipped")
    return entries


def finished_run(directory: PathLike) -> dict[str, Any] | None:
    """Return the results of a finished run; None if they are missing or damaged."""
    try:
        content = read_verified_json(Path(directory) / RESULTS)
    except (OSError, DamagedFile):
        return None
    if isinstance(content, dict) and content.get("status") == "finished":
        return content
    return None


def results_fault(directory: PathLike) -> str:
    """Return the error message for a damaged results.json; "" if it is valid or missing."""
    try:
        read_verified_json(Path(directory) / RESULTS)
    except (OSError, DamagedFile) as error:
        return str(error) if isinstance(error, DamagedFile) else ""
    return ""


@contextmanager
def startup_cleanup(directory: Path) -> Iterator[SimpleNamespace]:
    """Remove new logs and folders if a run fails before it has started.

    The run sets the attribute `started` when it writes its own files; then nothing is removed.
    """
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    old_logs, run = set(directory.glob(f"{LOG}*")), SimpleNamespace(started=False)
    try:
        yield run
    except Exception:
        if run.started:
            raise
        for log in set(directory.glob(f"{LOG}*")) - old_logs:
            log.unlink(missing_ok=True)
        for folder in missing:
            for name in (LOCK, HOLDER):
                (folder / name).unlink(missing_ok=True)
            if not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()
        raise
