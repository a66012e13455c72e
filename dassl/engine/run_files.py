"""The files of a run's folder, and how they are removed when another run replaces it."""

from collections.abc import Sequence
from pathlib import Path

from safeio.files import PathLike

from ..utils.checkpoint import POINTER
from ..utils.newest_valid import DAMAGED

HISTORY = "history.jsonl"
RESULTS = "results.json"
CONFIG = "config.yaml"
TENSORBOARD = "tensorboard"
RESUME = "resume.pth.tar"

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
    last: as long as a checkpoint is left, it says whose that is. Logs, checkpoints that were set
    aside because they are damaged, and files that are not known to be a run's are not listed.
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
