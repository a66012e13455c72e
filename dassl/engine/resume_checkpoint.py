"""The resume checkpoint, resume.pth.tar, from which an interrupted run continues.

A run rewrites this file while it trains, in addition to Dassl's numbered checkpoints, and removes
it at the end. It contains the complete state between two batches, so that a resumed run is
bit-identical to an uninterrupted one.
"""

import json
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from safeio.errors import UserError
from safeio.files import PathLike

from ..config import Config
from ..utils import CheckpointFolder, load_checkpoint, newest_common
from ..utils.checkpoint import finished_epochs, write_checkpoint
from ..utils.checkpoint_folder import number_of
from .run_files import RESUME
from .settings import (
    MAX_EPOCH,
    Difference,
    comparable,
    differences,
    recorded_settings,
    settings_in,
)

# A killed run repeats at most this many seconds of training. Large models are saved less often, so
# that saving takes at most this share of the time.
SAVE_SECONDS = 15.0
SAVE_SHARE = 0.02
# Entry of an optimiser's parameter group -> key in cfg.OPTIM.
_OPTIMIZER_KEYS = {
    **{"initial_lr": "LR", "weight_decay": "WEIGHT_DECAY", "momentum": "MOMENTUM"},
    **{"dampening": "SGD_DAMPNING", "nesterov": "SGD_NESTEROV", "alpha": "RMSPROP_ALPHA"},
}
TRAINED_PARTS = ("train_x", "train_u", "val")
_MODEL_ENTRIES = ("state_dict", "optimizer", "scheduler")
_REQUIRED_ENTRIES: dict[str, type | tuple[type, ...]] = {
    **{"epoch": int, "batches": int, "seconds": (int, float), "lr": (int, float, NoneType)},
    **{"losses": dict, "own": dict, "models": dict},
}


class ResumeCheckpoint:
    """The file resume.pth.tar of one run and its write schedule.

    Attributes:
        saved: epoch and number of its finished batches in the file; None before it is written.
        batched: number of runs that one process trains at once and saves one after the other.
    """

    def __init__(self, directory: PathLike) -> None:
        self.path = Path(directory) / RESUME
        self.saved: tuple[int, int] | None = None
        self.batched = 1
        self._unwritten: dict[str, Any] | None = None  # the latest state
        self._write_time = time.monotonic()
        self._write_seconds = 0.0

    def due(self) -> bool:
        """Return whether the file must be written again."""
        interval = max(SAVE_SECONDS, self.batched * self._write_seconds / SAVE_SHARE)
        return time.monotonic() - self._write_time >= interval

    def make_due(self) -> None:
        """Make the file due immediately."""
        self._write_time = -math.inf

    def update(self, state: dict[str, Any]) -> None:
        """Set the state that the next `write` saves."""
        self._unwritten = state

    def write(self) -> None:
        """Write the latest state, unless it is already written."""
        state, self._unwritten = self._unwritten, None
        if state is None:
            return
        start = time.monotonic()
        write_checkpoint(state, self.path)
        self._write_time = time.monotonic()
        self._write_seconds = self._write_time - start
        self.saved = (state["epoch"], state["batches"])

    def remove(self) -> None:
        """Remove the file at the end of the run."""
        self._unwritten = None
        self.path.unlink(missing_ok=True)

    def describe(self, max_epoch: int) -> str:
        """Return the saved progress, such as "epoch 2 of 3"; "" if nothing is saved."""
        if self.saved is None:
            return ""
        epoch, batches = self.saved
        if not batches:
            return f"epoch {epoch} of {max_epoch}"
        return f"batch {batches} of epoch {epoch + 1} of {max_epoch}"

    def load(self) -> dict[str, Any] | None:
        """Load the file; return None if it is missing or, after a printed warning, not valid."""
        if not self.path.is_file():
            return None
        try:
            state = load_checkpoint(self.path)
            if _has_all_entries(state):
                return {**state, "path": self.path}
            error = UserError(f'"{self.path}" is refused: it is not a resume checkpoint')
        except UserError as load_error:
            error = load_error
        print(f"Warning: {error}; resuming from an older checkpoint")
        return None


def _has_all_entries(state: dict[str, Any]) -> bool:
    """Return whether an untrusted checkpoint has the entries of a resume checkpoint."""
    if not all(isinstance(state.get(key), kinds) for key, kinds in _REQUIRED_ENTRIES.items()):
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
    """Load resume.pth.tar, or the numbered checkpoints, in the same form, if they are newer.

    Args:
        folder: the run's folder.
        names: names of the trainer's models.
        within_epoch: whether the trainer resumes within epochs.
        complete: whether numbered checkpoints contain the whole epoch; if not, an older
            resume.pth.tar is preferred.

    Returns:
        The state with the "path" of its file and, if known, the "settings"; None if no checkpoint
        is found.

    Raises:
        UserError: all checkpoints are damaged, or one contains code.
    """
    state = ResumeCheckpoint(folder).load()
    if state is not None and state["batches"] and not within_epoch:
        state = None  # another version of the trainer saved it
    if state is None or (complete and state["epoch"] < _numbered_epoch(folder, names)):
        state = newest_numbered(folder, names)
    if state is None:
        print("No checkpoint found, train from scratch")
    elif settings_in(state) is None and (recorded := recorded_settings(folder)) is not None:
        state["settings"] = json.dumps(recorded)  # an earlier version saved it without settings
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
    """Return the newest epoch for which all models have a numbered checkpoint; 0 if none."""
    newest = [CheckpointFolder(folder / name).newest() for name in names]
    return min(((path and number_of(path)) or 0 for path in newest), default=0)


def written_checkpoints(directory: PathLike, names: Iterable[str]) -> list[Path]:
    """List the newest checkpoints of a run; an empty directory name gives an empty list."""
    found = [CheckpointFolder(Path(directory) / name).newest() for name in names]
    found.append(Path(directory) / RESUME)
    return [path for path in found if path is not None and path.is_file() and directory]


def check_settings(state: Mapping[str, Any], cfg: Config, max_epoch: int) -> None:
    """Refuse a checkpoint that does not fit the configuration.

    Raises:
        UserError: its settings differ, or it has more epochs than the run, `max_epoch`.
    """
    settings = settings_in(state)
    found = differences(settings, comparable(cfg), longer=True) if settings else []
    if found:
        raise UserError(
            f'"{state["path"]}" cannot be resumed, since it was trained with other settings '
            f"({', '.join(map(str, found[:3]))}); use the same settings, or start a new training"
        )
    if state["epoch"] > max_epoch:
        raise UserError(
            f'"{state["path"]}" was saved after {state["epoch"]} epochs, but {MAX_EPOCH} is '
            f"{max_epoch}; set it to at least {state['epoch']}"
        )


def check_data(state: Mapping[str, Any], data: Mapping[str, str]) -> None:
    """Refuse a checkpoint that was trained on other images than those with the hashes `data`.

    Raises:
        UserError: the images of a split differ.
    """
    recorded = state.get("data")
    if not isinstance(recorded, dict) or not recorded or not data:
        return
    if changed := [part for part in TRAINED_PARTS if recorded.get(part) != data.get(part)]:
        raise UserError(
            f'"{state["path"]}" cannot be resumed, since the images of {", ".join(changed)} are '
            "not those that it was trained with (their names, sizes, labels or class names "
            "differ); use the original data, or start a new training in another --output-dir or "
            "with --overwrite"
        )


def check_optimizer(path: Path, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Refuse a checkpoint without settings if loading it changes settings of the optimiser.

    Raises:
        UserError: a setting of the optimiser differs.
    """
    if before["optimizer"] is None or after["optimizer"] is None:
        return
    groups = (state["optimizer"]["param_groups"] for state in (before, after))
    for new, old in zip(*groups, strict=True):
        for key, setting in _OPTIMIZER_KEYS.items():
            if key in old and key in new and old[key] != new[key]:
                raise UserError(
                    f'"{path}" cannot be resumed, since it was trained with other settings '
                    f"({Difference(f'OPTIM.{setting}', old[key], new[key])}); use the same settings"
                )


def origins_of(state: Mapping[str, Any], cfg: Config) -> list[dict[str, Any]]:
    """Return the "origins" of results.json: epochs that were trained with other settings.

    Returns:
        Entries {"epochs": number of epochs up to there, "settings": those that differ, or None if
        unknown}.
    """
    known, settings = state.get("origins"), settings_in(state)
    found = list(known) if isinstance(known, list) else []
    if settings is None:
        print(f"Note: the settings of the first {state['epoch']} epochs are unknown")
        found.append({"epochs": state["epoch"], "settings": None})
    elif settings.get(MAX_EPOCH) != cfg.OPTIM.MAX_EPOCH:
        found.append({"epochs": state["epoch"], "settings": {MAX_EPOCH: settings.get(MAX_EPOCH)}})
    return found
