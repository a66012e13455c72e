"""The checkpoint folder of one model, with Dassl's file names."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from safeio.checksums import DamagedFile
from safeio.errors import UserError
from safeio.files import PathLike, mkdir_if_missing, write_atomic, write_text

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
DAMAGED_SUFFIX = ".damaged"  # of quarantined files


class CheckpointFolder:
    """Files model.pth.tar-<epoch>, "checkpoint" (name of the newest) and model-best.pth.tar."""

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)

    def numbered(self) -> list[Path]:
        """Return the numbered checkpoints, newest first."""
        found = [path for path in self.path.glob(f"{NUMBERED}*") if number_of(path) is not None]
        return sorted(found, key=lambda path: number_of(path) or 0, reverse=True)

    def newest(self) -> Path | None:
        """Return the checkpoint named in the file `checkpoint`, or that of the last epoch."""
        pointer = self.path / POINTER
        if pointer.is_file():
            named = self.path / Path(pointer.read_text(errors="replace").strip()).name
            if named.is_file():
                return named
        return next(iter(self.numbered()), None)

    def choose(self, epoch: int | None = None) -> Path:
        """Return the checkpoint of an epoch; by default the best or, without one, the newest.

        Raises:
            UserError: the folder contains no checkpoint.
        """
        if epoch is not None:
            return self.path / f"{NUMBERED}{epoch}"
        best = self.path / BEST
        path = best if best.is_file() else self.newest()
        if path is None:
            raise UserError(f'No checkpoint in "{self.path}"')
        return path

    def newest_valid(self, at_most: int | None = None) -> tuple[Path, dict[str, Any]] | None:
        """Load the newest undamaged checkpoint, up to an epoch; quarantine damaged ones.

        Quarantined files are renamed, so that the run can write new ones and users can inspect
        the damaged ones.

        Returns:
            The file and its content; None if no checkpoint is found.

        Raises:
            DamagedFile: all checkpoints are damaged.
            UserError: a checkpoint contains code.
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
                f"{fault}, and {self.path} contains no other checkpoint to resume from; start the "
                "run in another folder, or remove the checkpoints in this one"
            )
        return None

    def save(
        self,
        state: dict[str, Any],
        is_best: bool = False,
        name: str = "",
        remove_module_from_keys: bool = True,
    ) -> Path:
        """Write a checkpoint atomically.

        Args:
            state: contains state_dict, epoch (number of finished epochs) and any other entries.
            is_best: also save a copy as model-best.pth.tar.
            name: file name; default model.pth.tar-<epoch>.
            remove_module_from_keys: remove DataParallel's prefix "module." from the keys.

        Returns:
            The path of the file.
        """
        mkdir_if_missing(self.path)
        path = self.path / (name or f"{NUMBERED}{state['epoch']}")
        if remove_module_from_keys:
            state = {**state, "state_dict": without_module_prefix(state["state_dict"])}
        write_checkpoint(state, path)
        # Runs resume only from numbered checkpoints, so only these update the pointer.
        if not name:
            write_text(path.name + "\n", self.path / POINTER)
        if is_best:
            write_atomic(self.path / BEST, lambda temporary: shutil.copyfile(path, temporary))
            print(f'Best checkpoint saved to "{BEST}"')
        return path


def number_of(path: Path) -> int | None:
    """Return the number of finished epochs in a checkpoint's file name; None without one."""
    number = path.name.removeprefix(NUMBERED)
    return int(number) if number != path.name and number.isdecimal() else None


def _quarantine(path: Path, error: UserError) -> None:
    damaged = path.with_name(path.name + DAMAGED_SUFFIX)
    try:
        path.replace(damaged)
        print(f"Warning: {error}; it was renamed to {damaged.name}; trying an older checkpoint")
    except OSError:  # the folder is read-only
        print(f"Warning: {error}; trying an older checkpoint")


def newest_common(folders: Mapping[str, PathLike]) -> dict[str, tuple[Path, dict[str, Any]]] | None:
    """Load the newest epoch for which all models have an undamaged checkpoint.

    After a crash between writing two models' files, one of them is an epoch behind.

    Returns:
        Model name -> (file, content); None if a model has no checkpoint.

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
    """Write a checkpoint to the folder of one model; see `CheckpointFolder.save`."""
    return CheckpointFolder(save_dir).save(state, is_best, model_name, remove_module_from_keys)


def resume_from_checkpoint(
    fdir: PathLike,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: Any = None,
) -> int:
    """Load the newest valid checkpoint of a folder into a model, its optimiser and its scheduler.

    Returns:
        The number of finished epochs, which is the epoch to resume in.

    Raises:
        UserError: the folder contains no usable checkpoint.
    """
    found = CheckpointFolder(fdir).newest_valid()
    if found is None:
        raise UserError(f'"{fdir}" contains no checkpoint to resume from')
    path, state = found
    print(f'Loading checkpoint from "{path}"')
    load_state(path, state, model, optimizer, scheduler)
    return finished_epochs(path, state)
