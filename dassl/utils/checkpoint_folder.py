"""A folder of one model's checkpoints, as Dassl lays it out."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from safeio.checksums import DamagedFile
from safeio.errors import UserError
from safeio.files import PathLike, mkdir_if_missing, write_atomic

from .checkpoint import (
    finished_epochs,
    load_checkpoint,
    load_state,
    without_module_prefix,
    write_checkpoint,
)

POINTER = "checkpoint"
BEST = "model-best.pth.tar"
NUMBERED = "model.pth.tar-"
DAMAGED = ".damaged"  # ends the name of a checkpoint in quarantine


class CheckpointFolder:
    """model.pth.tar-<epoch> files, a text file that names the newest, perhaps model-best.pth.tar.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)

    def numbered(self) -> list[Path]:
        """Return the checkpoints of finished epochs, from the newest to the oldest."""
        found = [path for path in self.path.glob(f"{NUMBERED}*") if number_of(path) is not None]
        return sorted(found, key=lambda path: number_of(path) or 0, reverse=True)

    def newest(self) -> Path | None:
        """Return the checkpoint that the file `checkpoint` names, else that of the last epoch."""
        pointer = self.path / POINTER
        if pointer.is_file():
            named = self.path / Path(pointer.read_text(errors="replace").strip()).name
            if named.is_file():
                return named
        return next(iter(self.numbered()), None)

    def best(self) -> Path | None:
        """Return the checkpoint of the best epoch on the validation set, if there is one."""
        path = self.path / BEST
        return path if path.is_file() else None

    def choose(self, epoch: int | None = None) -> Path:
        """Return the checkpoint to load: the given epoch, else the best, else the newest.

        Raises:
            UserError: there is none.
        """
        if epoch is not None:
            return self.path / f"{NUMBERED}{epoch}"
        path = self.best() or self.newest()
        if path is None:
            raise UserError(f'No checkpoint in "{self.path}"')
        return path

    def newest_valid(self, at_most: int | None = None) -> tuple[Path, dict[str, Any]] | None:
        """Load the newest checkpoint that is not damaged.

        A damaged one is named in a printed warning and renamed: the run can write its own, and
        nothing is lost that somebody may want to look at.

        Args:
            at_most: the highest number of finished epochs.

        Returns:
            The file and its content; None where there is none.

        Raises:
            DamagedFile: there are checkpoints, and all are damaged.
            UserError: a checkpoint asks for code to be run.
        """
        candidates = self.numbered()
        if at_most is not None:
            candidates = [path for path in candidates if (number_of(path) or 0) <= at_most]
        elif (newest := self.newest()) is not None:
            candidates = [newest, *(path for path in candidates if path != newest)]
        fault: DamagedFile | None = None
        for path in candidates:
            try:
                return path, load_checkpoint(path)
            except DamagedFile as error:
                fault = error
                _quarantine(path, error)
        if fault is not None:
            raise DamagedFile(
                f"{fault}, and there is no other checkpoint in {self.path} to go on from; start "
                "the run in another folder, or remove this one's checkpoints"
            )
        return None

    def save(
        self,
        state: dict[str, Any],
        is_best: bool = False,
        name: str = "",
        remove_module_from_keys: bool = True,
    ) -> Path:
        """Write a checkpoint; an interrupted write leaves the older files as they were.

        Args:
            state: state_dict, epoch (finished epochs) and what else shall be saved.
            is_best: also save a copy as model-best.pth.tar.
            name: file name; default model.pth.tar-<epoch>.
            remove_module_from_keys: drop the "module." that DataParallel puts before the names.

        Returns:
            The path of the file.
        """
        mkdir_if_missing(self.path)
        path = self.path / (name or f"{NUMBERED}{state['epoch']}")
        if remove_module_from_keys:
            state = {**state, "state_dict": without_module_prefix(state["state_dict"])}
        write_checkpoint(state, path)
        # A best-so-far model is none to resume from: only numbered checkpoints move the pointer.
        if not name:
            text = path.name + "\n"
            write_atomic(self.path / POINTER, lambda temporary: temporary.write_text(text))
        if is_best:
            write_atomic(self.path / BEST, lambda temporary: shutil.copyfile(path, temporary))
            print(f'Best checkpoint saved to "{BEST}"')
        return path


def number_of(path: Path) -> int | None:
    """Return after how many epochs a checkpoint was written, by its name; None if it has none."""
    number = path.name.removeprefix(NUMBERED)
    return int(number) if number != path.name and number.isdecimal() else None


def _quarantine(path: Path, error: UserError) -> None:
    damaged = path.with_name(path.name + DAMAGED)
    try:
        path.replace(damaged)
        print(f"Warning: {error}; it is now {damaged.name}: going on from another checkpoint")
    except OSError:  # a folder that cannot be written to
        print(f"Warning: {error}; an earlier checkpoint takes its place")


def newest_common(folders: Mapping[str, PathLike]) -> dict[str, tuple[Path, dict[str, Any]]] | None:
    """Load the newest undamaged checkpoints of the same epoch of several models.

    A crash between two models' files leaves one of them an epoch behind.

    Args:
        folders: name of the model -> its folder.

    Returns:
        Name -> file and content; None where a model has none.

    Raises:
        UserError: see `CheckpointFolder.newest_valid`.
    """
    limit: int | None = None
    while True:
        found = {name: CheckpointFolder(path).newest_valid(limit) for name, path in folders.items()}
        valid = {name: value for name, value in found.items() if value is not None}
        if not valid or len(valid) < len(found):
            return None
        epochs = {finished_epochs(path, state) for path, state in valid.values()}
        if len(epochs) == 1:
            return valid
        limit = min(epochs)


def save_checkpoint(
    state: dict[str, Any],
    save_dir: PathLike,
    is_best: bool = False,
    remove_module_from_keys: bool = True,
    model_name: str = "",
) -> Path:
    """Write a checkpoint into the folder of one model; see `CheckpointFolder.save`."""
    return CheckpointFolder(save_dir).save(state, is_best, model_name, remove_module_from_keys)


def resume_from_checkpoint(
    fdir: PathLike,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: Any = None,
) -> int:
    """Load the newest valid checkpoint of a folder into a model, its optimiser and its scheduler.

    Returns:
        The number of finished epochs, which is the epoch to resume with.

    Raises:
        UserError: there is no usable checkpoint in the folder.
    """
    found = CheckpointFolder(fdir).newest_valid()
    if found is None:
        raise UserError(f'Nothing to resume from in "{fdir}"')
    path, state = found
    print(f'Loading checkpoint from "{path}"')
    load_state(path, state, model, optimizer, scheduler)
    return finished_epochs(path, state)
