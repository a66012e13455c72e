"""Checkpoint files, read without running anything that they may contain.

Each is a dictionary with Dassl's state_dict, epoch, optimizer, scheduler and val_result, plus what
resuming bit for bit needs, such as the random generators' states.

Behind the archive that `torch.save` makes stands its SHA-256, in the archive's comment, so that
`torch.load` and Dassl read the file as any other. PyTorch itself does not notice a changed number:
it passes over the CRC-32 of the archive's members. We check these where a file has no SHA-256.
"""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from safeio.checksums import DamagedFile, add_archive_checksum, archive_fault
from safeio.errors import UserError
from safeio.files import PathLike, write_atomic
from safeio.pickles import check_file, check_tensors
from safeio.untrusted import one_line, short_repr


class _Inert:
    """Inert stand-in for any object in a file, such as the pickled schedulers in Dassl's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs

    def __setstate__(self, state: Any) -> None:
        del state


def _empty_dict(factory: Any = None) -> dict[Any, Any]:
    """Stands for a defaultdict, which PyTorch's restricted reader cannot fill."""
    del factory
    return {}


def _inert_names() -> list[str]:
    """Return the classes that Dassl's checkpoints are known to name besides tensors."""
    schedulers = torch.optim.lr_scheduler
    names = {"dassl.optim.lr_scheduler.ConstantWarmupScheduler"}
    names.add("dassl.optim.lr_scheduler.LinearWarmupScheduler")
    for module in (torch.optim, schedulers):
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__.startswith("torch.optim"):
                names.add(f"{value.__module__}.{value.__qualname__}")
    return sorted(names)


def _allowed_globals() -> list[Any]:
    """Return what may be built beyond PyTorch's own list: NumPy's scalars and inert stand-ins."""
    scalar = np.float64(0).__reduce__()[0]
    dtypes = [np.float64, np.float32, np.int64, np.int32, np.bool_]
    allowed: list[Any] = [np.dtype, *(type(np.dtype(kind)) for kind in dtypes)]
    # An optimiser's state, which a pickled scheduler drags along, is a defaultdict(dict).
    allowed += [dict, (dict, "__builtin__.dict"), (_empty_dict, "collections.defaultdict")]
    allowed += [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    # A type of its own for each name: the reader looks classes up by name in both directions.
    allowed += [(type("_Inert", (_Inert,), {}), name) for name in _inert_names()]
    return allowed


def load_checkpoint(fpath: PathLike) -> dict[str, Any]:
    """Load a checkpoint to the CPU, tensors and plain values only.

    Args:
        fpath: a file of ours or of Dassl.

    Raises:
        DamagedFile: the file is damaged or no checkpoint.
        UserError: the file is missing, or asks for code to be run.
    """
    path = Path(fpath).expanduser()
    if not path.is_file():
        raise UserError(f'No checkpoint at "{path}"')
    if why := archive_fault(path):
        raise DamagedFile(f'"{path}" is refused: it is damaged ({why})')
    try:
        check_file(path)
        with torch.serialization.safe_globals(_allowed_globals()):
            content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or _spoilt_member(path):
            raise ValueError("no checkpoint")
        check_tensors(content)
    except Exception as error:  # a damaged file makes the reader fail in any way
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise UserError(
                f'"{path}" is refused: it holds more than tensors and plain values, and reading it '
                "could run code"
            ) from error
        raise DamagedFile(f'"{path}" is refused: it is damaged or no checkpoint') from error
    return content


def _spoilt_member(path: Path) -> str | None:
    """A member of an archive without our SHA-256 whose CRC-32 is wrong."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        return None if archive.comment else archive.testzip()


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint with its checksum; an interrupted write leaves the older file alone."""
    content = io.BytesIO()  # PyTorch's own writer does not say that a disk is full
    torch.save(state, content)
    archive = bytearray(content.getbuffer())
    add_archive_checksum(archive)
    write_atomic(path, lambda temporary: temporary.write_bytes(archive))
    print(f"Checkpoint saved to {path}")


def without_module_prefix(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Drop the "module." that DataParallel puts before the names."""
    return {name.removeprefix("module."): value for name, value in state_dict.items()}


def finished_epochs(path: PathLike | None, state: dict[str, Any]) -> int:
    """The number of epochs after which a checkpoint was written.

    Raises:
        UserError: it does not say.
    """
    epoch = state.get("epoch")
    if not isinstance(epoch, int) or epoch < 0:
        raise UserError(f'"{path}" is refused: its epoch is {short_repr(epoch)}')
    return epoch


def load_state(
    path: PathLike | None,
    state: dict[str, Any],
    model: Any,
    optimizer: Any = None,
    scheduler: Any = None,
) -> None:
    """Fill model, optimiser and scheduler from a loaded checkpoint.

    A schedule that Dassl has saved is set to the checkpoint's epoch.

    Raises:
        UserError: the checkpoint belongs to another model.
    """
    try:
        model.load_state_dict(state["state_dict"])
        if optimizer is not None and state.get("optimizer") is not None:
            optimizer.load_state_dict(state["optimizer"])
        if scheduler is not None and state.get("scheduler") is not None:
            go_to_epoch = getattr(scheduler, "go_to_epoch", None)
            if go_to_epoch is not None and set(state["scheduler"]) != set(scheduler.state_dict()):
                go_to_epoch(finished_epochs(path, state))
            else:
                scheduler.load_state_dict(state["scheduler"])
    except Exception as error:  # an untrusted checkpoint can hold anything under these names
        raise UserError(f'"{path}" does not fit this run: {one_line(error)}') from error


def load_pretrained_weights(model: nn.Module, weight_path: PathLike) -> None:
    """Copy the weights whose name and shape fit from a checkpoint or a bare state dict.

    Args:
        model: gets the weights.
        weight_path: the file.

    Raises:
        UserError: the file is no checkpoint.
    """
    checkpoint = load_checkpoint(weight_path)
    weights = checkpoint.get("state_dict", checkpoint)
    if not isinstance(weights, dict):
        raise UserError(f'"{weight_path}" is refused: its state_dict is none')
    state_dict = without_module_prefix(
        {str(name): value for name, value in weights.items() if isinstance(value, torch.Tensor)}
    )
    own = model.state_dict()
    fitting = {k: v for k, v in state_dict.items() if k in own and own[k].shape == v.shape}
    left_out = [name for name in state_dict if name not in fitting]
    if not fitting:
        print(f"Warning: nothing in {weight_path} fits the model, check the names of its layers")
        return
    model.load_state_dict({**own, **fitting})
    print(f"Loaded pretrained weights from {weight_path}")
    if left_out:
        print(f"Left out, since their name or shape does not fit: {left_out}")
