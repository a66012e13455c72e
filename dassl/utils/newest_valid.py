"""Going on from the newest checkpoint that is whole, where the newest of all is damaged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from safeio.checksums import DamagedFile
from safeio.errors import UserError
from safeio.files import PathLike

from .checkpoint import find_checkpoint, finished_epochs, load_checkpoint, load_state

DAMAGED = ".damaged"  # ends the name of a checkpoint that was set aside


def numbered_checkpoints(directory: PathLike) -> dict[int, Path]:
    """The checkpoints of finished epochs in a folder, by their number."""
    found = {}
    for path in Path(directory).glob("model.pth.tar-*"):
        number = path.name.removeprefix("model.pth.tar-")
        if number.isdecimal():
            found[int(number)] = path
    return found


def load_last_good(
    directory: PathLike, at_most: int | None = None
) -> tuple[Path, dict[str, Any]] | None:
    """Load the newest checkpoint of a folder that is not damaged.

    A damaged one is named in a printed warning and set aside: it gets another name, so that the run
    can write its own, and nothing is lost that somebody may want to look at.

    Args:
        directory: the folder of one model.
        at_most: the highest number of finished epochs; None for that of the `checkpoint` file.

    Returns:
        The file and what it holds; None where there is none.

    Raises:
        DamagedFile: there are checkpoints, and all are damaged.
        UserError: a checkpoint asks for code to be run.
    """
    candidates = [path for _, path in sorted(numbered_checkpoints(directory).items())][::-1]
    named = find_checkpoint(directory)
    if named is None and not candidates:
        return None
    if at_most is not None:
        candidates = [path for path in candidates if _number(path) <= at_most]
    elif named is not None and named.is_file():
        candidates = [named, *(path for path in candidates if path != named)]
    fault: DamagedFile | None = None
    for path in candidates:
        try:
            return path, load_checkpoint(path)
        except DamagedFile as error:
            fault = error
            _set_aside(path, error)
    if fault is not None:
        raise DamagedFile(
            f"{fault}, and there is no other checkpoint in {directory} to go on from; start the "
            "run in another folder, or remove this one's checkpoints"
        )
    return None


def _number(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _set_aside(path: Path, error: UserError) -> None:
    aside = path.with_name(path.name + DAMAGED)
    try:
        path.replace(aside)
        print(f"Warning: {error}; it is now {aside.name}: going on from another checkpoint")
    except OSError:  # a folder that cannot be written to
        print(f"Warning: {error}; an earlier checkpoint takes its place")


def load_last_common(folders: Mapping[str, Path]) -> dict[str, tuple[Path, dict[str, Any]]] | None:
    """Load the newest undamaged checkpoints of the same epoch of several models.

    A crash between two models' files leaves one of them an epoch behind.

    Args:
        folders: name of the model -> its folder.

    Returns:
        Name -> file and content; None where a model has none.

    Raises:
        UserError: see `load_last_good`.
    """
    limit: int | None = None
    while True:
        found = {name: load_last_good(folder, limit) for name, folder in folders.items()}
        there = {name: value for name, value in found.items() if value is not None}
        if not there or len(there) < len(found):
            return None
        epochs = {finished_epochs(path, state) for path, state in there.values()}
        if len(epochs) == 1:
            return there
        limit = min(epochs)


def resume_from_checkpoint(
    fdir: PathLike,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: Any = None,
) -> int:
    """Put a model, its optimiser and its scheduler back to where the newest checkpoint left them.

    Args:
        fdir: folder of one model.
        model: filled with the saved state_dict.
        optimizer: filled when given and saved.
        scheduler: filled when given and saved.

    Returns:
        The number of finished epochs, which is the epoch to go on with.

    Raises:
        UserError: there is no usable checkpoint in the folder.
    """
    found = load_last_good(fdir)
    if found is None:
        raise UserError(f'Nothing to resume from in "{fdir}"')
    path, state = found
    print(f'Loading checkpoint from "{path}"')
    load_state(path, state, model, optimizer, scheduler)
    return finished_epochs(path, state)
