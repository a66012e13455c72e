"""Write checkpoints with a checksum and load untrusted ones without running code in them.

A checkpoint is a dictionary with Dassl's state_dict, epoch, optimizer, scheduler and val_result,
and the remaining state for a bit-identical resume, such as that of the random generators.

The comment of the zip archive written by `torch.save` contains its SHA-256, so that `torch.load`
and Dassl can read the file. PyTorch ignores the CRC-32 of the archive's members and so does not
detect changed numbers; we check it in files without SHA-256.
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
    """Inert stand-in for any object in a pickle, such as Dassl's schedulers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs

    def __setstate__(self, state: Any) -> None:
        del state


def _empty_dict(factory: Any = None) -> dict[Any, Any]:
    """Replace a defaultdict, which PyTorch's restricted unpickler cannot fill."""
    del factory
    return {}


def _inert_names() -> list[str]:
    """Return the names of the optimisers and schedulers that Dassl's checkpoints may contain."""
    warmups = ("ConstantWarmupScheduler", "LinearWarmupScheduler")
    names = {f"dassl.optim.lr_scheduler.{name}" for name in warmups}
    for value in (*vars(torch.optim).values(), *vars(torch.optim.lr_scheduler).values()):
        if isinstance(value, type) and value.__module__.startswith("torch.optim"):
            names.add(f"{value.__module__}.{value.__qualname__}")
    return sorted(names)


def _allowed_globals() -> list[Any]:
    """Return globals to allow in addition to PyTorch's: NumPy scalars and inert stand-ins."""
    scalar = np.float64(0).__reduce__()[0]
    dtypes = [np.float64, np.float32, np.int64, np.int32, np.bool_]
    allowed: list[Any] = [np.dtype, *(type(np.dtype(kind)) for kind in dtypes)]
    # A pickled scheduler contains its optimiser, whose state is a defaultdict(dict).
    allowed += [dict, (dict, "__builtin__.dict"), (_empty_dict, "collections.defaultdict")]
    allowed += [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    # One type per name, because the unpickler needs a one-to-one mapping of types and names.
    allowed += [(type("_Inert", (_Inert,), {}), name) for name in _inert_names()]
    return allowed


def load_checkpoint(fpath: PathLike) -> dict[str, Any]:
    """Load a checkpoint of this project or of Dassl to the CPU: tensors and plain values only.

    Raises:
        DamagedFile: the file is damaged or not a checkpoint.
        UserError: the file is missing or contains code.
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
        if not isinstance(content, dict) or _corrupt_member(path):
            raise ValueError("not a checkpoint")
        check_tensors(content)
    except Exception as error:  # damaged files raise many kinds of errors
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise UserError(
                f'"{path}" is refused: it holds more than tensors and plain values, and reading it '
                "could run code"
            ) from error
        raise DamagedFile(f'"{path}" is refused: it is damaged or not a checkpoint') from error
    return content


def _corrupt_member(path: Path) -> str | None:
    """Return the first member with a wrong CRC-32 of an archive without SHA-256."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        return None if archive.comment else archive.testzip()


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint with its checksum atomically."""
    content = io.BytesIO()  # PyTorch's file writer does not report a full disk
    torch.save(state, content)
    archive = bytearray(content.getbuffer())
    add_archive_checksum(archive)
    write_atomic(path, lambda temporary: temporary.write_bytes(archive))
    print(f"Checkpoint saved to {path}")


def without_module_prefix(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Remove DataParallel's prefix "module." from the keys."""
    return {name.removeprefix("module."): value for name, value in state_dict.items()}


def finished_epochs(path: PathLike | None, state: dict[str, Any]) -> int:
    """Return the number of finished epochs in a checkpoint.

    Raises:
        UserError: its epoch is missing or not a natural number.
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
    """Restore model, optimiser and scheduler from a loaded checkpoint.

    A scheduler in the format of Dassl is set to the checkpoint's epoch.

    Raises:
        UserError: the checkpoint does not fit, for example because it is of another model.
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
    """Copy the weights whose name and shape match from a checkpoint or a state dict.

    Raises:
        UserError: the file is not a checkpoint.
    """
    checkpoint = load_checkpoint(weight_path)
    weights = checkpoint.get("state_dict", checkpoint)
    if not isinstance(weights, dict):
        raise UserError(f'"{weight_path}" is refused: its state_dict is not a dictionary')
    state_dict = without_module_prefix(
        {str(name): value for name, value in weights.items() if isinstance(value, torch.Tensor)}
    )
    own = model.state_dict()
    matching = {k: v for k, v in state_dict.items() if k in own and own[k].shape == v.shape}
    skipped = [name for name in state_dict if name not in matching]
    if not matching:
        print(f"Warning: no weights in {weight_path} match the model; check the layer names")
        return
    model.load_state_dict({**own, **matching})
    print(f"Loaded pretrained weights from {weight_path}")
    if skipped:
        print(f"Skipped weights whose name or shape does not match: {skipped}")
