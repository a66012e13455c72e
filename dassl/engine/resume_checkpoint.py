"""The checkpoint that a killed run resumes from.

Besides Dassl's numbered checkpoints a run has one file, resume.pth.tar, that is written again and
again while it trains and is removed when it has ended. It holds everything between two batches, so
that what follows is the same, bit for bit, as if nothing had happened.
"""

import json
import math
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import NoneType
from typing import Any

from safeio.errors import UserError
from safeio.files import PathLike
from safeio.untrusted import short_repr

from ..utils import CheckpointFolder, load_checkpoint, newest_common
from ..utils.checkpoint import finished_epochs, write_checkpoint
from ..utils.checkpoint_folder import number_of
from .run_files import RESUME
from .settings import MAX_EPOCH, comparable, differences, recorded_settings, settings_in

# At most so much is done a second time after a kill. Large models are saved less often: saving
# takes no more than this share of the time.
SAVE_SECONDS = 15.0
SAVE_SHARE = 0.02
# What an optimiser's state says of its settings, under their names in cfg.OPTIM.
_OPTIMIZER_KEYS = {
    **{"initial_lr": "LR", "weight_decay": "WEIGHT_DECAY", "momentum": "MOMENTUM"},
    **{"dampening": "SGD_DAMPNING", "nesterov": "SGD_NESTEROV", "alpha": "RMSPROP_ALPHA"},
}
TRAINED_PARTS = ("train_x", "train_u", "val")
_MODEL_ENTRIES = ("state_dict", "optimizer", "scheduler")
_ENTRIES: dict[str, type | tuple[type, ...]] = {
    **{"epoch": int, "batches": int, "seconds": (int, float), "lr": (int, float, NoneType)},
    **{"losses": dict, "own": dict, "models": dict},
}


class ResumeCheckpoint:
    """The file resume.pth.tar of one run, and when it is due to be written.

    Args:
        directory: the run's folder.

    Attributes:
        saved: the epoch and its finished batches up to which the run is on the disk, if it is.
    """

    def __init__(self, directory: PathLike) -> None:
        self.path = Path(directory) / RESUME
        self.saved: tuple[int, int] | None = None
        self._state: dict[str, Any] | None = None  # the latest, unless it is written
        self._written_at = time.monotonic()
        self._writing_took = 0.0

    def due(self) -> bool:
        """Whether the file was written long enough ago."""
        waits = max(SAVE_SECONDS, self._writing_took / SAVE_SHARE)
        return time.monotonic() - self._written_at >= waits

    def make_due(self) -> None:
        """Let the next state be written, whenever the latest was."""
        self._written_at = -math.inf

    def update(self, state: dict[str, Any]) -> None:
        """Take the latest state, to be written now or later."""
        self._state = state

    def write(self) -> None:
        """Write the latest state, unless it is written."""
        state, self._state = self._state, None
        if state is None:
            return
        start = time.monotonic()
        write_checkpoint(state, self.path)
        self._written_at = time.monotonic()
        self._writing_took = self._written_at - start
        self.saved = (state["epoch"], state["batches"])

    def remove(self) -> None:
        """Remove the file: the run has ended."""
        self._state = None
        with suppress(FileNotFoundError):
            self.path.unlink()

    def describe(self, max_epoch: int) -> str:
        """Say up to where the run is saved; "" where it is not."""
        if self.saved is None:
            return ""
        epoch, batches = self.saved
        if not batches:
            return f"epoch {epoch} of {max_epoch}"
        return f"batch {batches} of epoch {epoch + 1} of {max_epoch}"

    def load(self) -> dict[str, Any] | None:
        """Load the file; None without one, or where it is damaged, which is printed."""
        if not self.path.is_file():
            return None
        try:
            state = load_checkpoint(self.path)
            if _has_all_entries(state):
                return {**state, "path": self.path}
            error = UserError(f'"{self.path}" is refused: it is no point to resume from')
        except UserError as refusal:
            error = refusal
        print(f"Warning: {error}; going on from an older checkpoint")
        return None


def _has_all_entries(state: dict[str, Any]) -> bool:
    """Whether a checkpoint has the form of ours, whoever it is from."""
    if not all(isinstance(state.get(key), kinds) for key, kinds in _ENTRIES.items()):
        return False
    return all(
        isinstance(meter, list | tuple)
        and len(meter) == 4
        and all(isinstance(number, int | float) for number in meter)
        for meter in state["losses"].values()
    )


def load_newest(
    folder: Path, names: Iterable[str], within_epoch: bool, complete: bool
) -> dict[str, Any] | None:
    """Load the newer of resume.pth.tar and the numbered checkpoints, in the form of the former.

    Args:
        folder: the run's.
        names: the trainer's models.
        within_epoch: whether the trainer resumes within epochs.
        complete: whether a numbered checkpoint holds all that its epoch did; otherwise an older
            resume.pth.tar is better.

    Returns:
        The state, with the "path" of its file and the "settings", where known; None without any.

    Raises:
        UserError: all checkpoints are damaged, or one asks for code to be run.
    """
    state = ResumeCheckpoint(folder).load()
    if state is not None and state["batches"] and not within_epoch:
        state = None  # saved by another version of the trainer
    if state is None or (complete and state["epoch"] < _numbered_epoch(folder, names)):
        state = newest_numbered(folder, names)
    if state is None:
        print("No checkpoint found, train from scratch")
    elif settings_in(state) is None and (recorded := recorded_settings(folder)) is not None:
        state["settings"] = json.dumps(recorded)  # a checkpoint of an earlier version
    return state


def newest_numbered(folder: Path, names: Iterable[str]) -> dict[str, Any] | None:
    """Load the `newest_common` checkpoints of all models, in the form of resume.pth.tar."""
    newest = newest_common({name: folder / name for name in names})
    if not newest:
        return None
    models = {}
    for name, (path, state) in newest.items():
        models[name] = {key: state[key] for key in _MODEL_ENTRIES if key in state}
        models[name]["path"] = path
    shared = {key: value for key, value in state.items() if key not in _MODEL_ENTRIES}
    epoch = finished_epochs(path, state)
    return {**shared, "epoch": epoch, "batches": 0, "models": models, "path": path}


def _numbered_epoch(folder: Path, names: Iterable[str]) -> int:
    """After how many epochs the newest numbered checkpoint was written, by its name."""
    newest = [CheckpointFolder(folder / name).newest() for name in names]
    return min(((path and number_of(path)) or 0 for path in newest), default=0)


def written_checkpoints(directory: PathLike, names: Iterable[str]) -> list[Path]:
    """List the newest checkpoints of a run; none without a folder."""
    found = [CheckpointFolder(Path(directory) / name).newest() for name in names]
    found.append(Path(directory) / RESUME)
    return [path for path in found if path is not None and path.is_file() and directory]


def check_settings(state: Mapping[str, Any], cfg: Any) -> None:
    """Refuse a checkpoint of other settings, or of more epochs than the run shall have."""
    settings = settings_in(state)
    found = differences(settings, comparable(cfg), longer=True) if settings else []
    if found:
        raise UserError(
            f'"{state["path"]}" cannot be resumed, since it was trained with other settings '
            f"({', '.join(map(str, found[:3]))}); leave these out, or train anew"
        )
    if state["epoch"] > cfg.OPTIM.MAX_EPOCH:
        raise UserError(
            f'"{state["path"]}" has {state["epoch"]} epochs behind it, but {MAX_EPOCH} is '
            f"{cfg.OPTIM.MAX_EPOCH}; give at least as many"
        )


def check_data(state: Mapping[str, Any], data: Mapping[str, str]) -> None:
    """Refuse a checkpoint that was trained on other images than the present ones.

    Args:
        state: the checkpoint.
        data: hashes by part, as `data_hashes` gives them.
    """
    recorded = state.get("data")
    if not isinstance(recorded, dict) or not recorded or not data:
        return
    if changed := [part for part in TRAINED_PARTS if recorded.get(part) != data.get(part)]:
        raise UserError(
            f'"{state["path"]}" cannot be resumed, since the images of {", ".join(changed)} are '
            "not those that it was trained with (their names, sizes, labels or class names "
            "differ); give the data that it was started with, or train anew in another "
            "--output-dir or with --overwrite"
        )


def check_optimizer(path: Path, present: Mapping[str, Any], resumed: Mapping[str, Any]) -> None:
    """Refuse a checkpoint without settings whose optimiser, which has some, says others.

    Args:
        path: of the checkpoint.
        present: a model's state before it is resumed.
        resumed: its state afterwards.
    """
    if present["optimizer"] is None or resumed["optimizer"] is None:
        return
    pairs = (state["optimizer"]["param_groups"] for state in (present, resumed))
    for new, old in zip(*pairs, strict=True):
        for key, setting in _OPTIMIZER_KEYS.items():
            if key in old and key in new and old[key] != new[key]:
                change = f"{short_repr(old[key])} -> {short_repr(new[key])}"
                raise UserError(
                    f'"{path}" cannot be resumed, since it was trained with other settings '
                    f"(OPTIM.{setting}: {change}); give its own"
                )


def origins_of(state: Mapping[str, Any], cfg: Any) -> list[dict[str, Any]]:
    """Return what results.json says of epochs that were not trained with the settings there.

    Returns:
        {"epochs": how many in all, "settings": what was different, None where nothing says it}.
    """
    known, settings = state.get("origins"), settings_in(state)
    found = list(known) if isinstance(known, list) else []
    if settings is None:
        print(f"Note: nothing says how the first {state['epoch']} epochs were trained")
        found.append({"epochs": state["epoch"], "settings": None})
    elif settings.get(MAX_EPOCH) != cfg.OPTIM.MAX_EPOCH:
        found.append({"epochs": state["epoch"], "settings": {MAX_EPOCH: settings.get(MAX_EPOCH)}})
    return found
