"""Reading the point that a run resumes from, and checking that it is the run's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from safeio.errors import UserError
from safeio.untrusted import shown

from ..utils import find_checkpoint, load_checkpoint, load_last_common
from ..utils.checkpoint import finished_epochs
from .run_files import RESUME
from .settings import MAX_EPOCH, comparable, differences, settings_in

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


def _is_point(state: dict[str, Any]) -> bool:
    """Whether a checkpoint has the form of ours, whoever it is from."""
    if not all(isinstance(state.get(key), kinds) for key, kinds in _ENTRIES.items()):
        return False
    meters = state["losses"].values()
    return all(
        isinstance(meter, list | tuple)
        and len(meter) == 4
        and all(isinstance(number, int | float) for number in meter)
        for meter in meters
    )


def _readable(path: Path) -> dict[str, Any] | None:
    """The state in a file; None without one, or where it is damaged, which is said."""
    if not path.is_file():
        return None
    try:
        state = load_checkpoint(path)
        if _is_point(state):
            return state
        error = UserError(f'"{path}" is refused: it is no point to resume from')
    except UserError as refusal:
        error = refusal
    print(f"Warning: {error}; going on from an older checkpoint")
    return None


def load_point(
    folder: Path, names: Sequence[str], state: dict[str, Any] | None, within: bool, own: bool
) -> dict[str, Any] | None:
    """Load the newer of resume.pth.tar and the numbered checkpoints, in the form of the former.

    Args:
        folder: the run's.
        names: the trainer's models.
        state: what its resume.pth.tar holds.
        within: whether the trainer resumes within epochs.
        own: whether it does something after an epoch's numbered checkpoint, which does not hold
            that: an older resume.pth.tar is then better.

    Returns:
        The state, with "path" for messages; None where there is none.

    Raises:
        UserError: all checkpoints are damaged, or one asks for code to be run.
    """
    if state is not None and state["batches"] and not within:
        state = None  # saved by another version of the trainer
    if state is not None and (own or state["epoch"] >= _numbered_epoch(folder, names)):
        return {**state, "path": folder / RESUME}
    newest = load_last_common({name: folder / name for name in names})
    if not newest:
        print("No checkpoint found, train from scratch")
        return None
    path, last = list(newest.values())[-1]
    return {
        **{key: value for key, value in last.items() if key not in _MODEL_ENTRIES},
        "epoch": finished_epochs(path, last),
        "batches": 0,
        "models": {name: state for name, (_, state) in newest.items()},
        "path": path,
    }


def _numbered_epoch(directory: Path, names: Sequence[str]) -> int:
    """How many epochs the newest numbered checkpoint has behind it, by its name."""
    newest = [find_checkpoint(directory / name) for name in names]
    numbers = [path.name.rpartition("-")[2] if path else "0" for path in newest]
    return min((int(n) if n.isdecimal() else 0 for n in numbers), default=0)


def check_settings(state: Mapping[str, Any], cfg: Any) -> None:
    """Refuse a point of other settings, whatever config.yaml says beside it.

    Raises:
        UserError: a setting differs, or more epochs are done than the run shall have.
    """
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
    """Refuse a point that was trained on other images than the present ones.

    Args:
        state: the point.
        data: hashes by part, as `data_hashes` gives them.

    Raises:
        UserError: the names, sizes, labels or class names of a part's images differ.
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

    Raises:
        UserError: a setting differs.
    """
    if present["optimizer"] is None or resumed["optimizer"] is None:
        return
    pairs = (state["optimizer"]["param_groups"] for state in (present, resumed))
    for new, old in zip(*pairs, strict=True):
        for key, setting in _OPTIMIZER_KEYS.items():
            if key in old and key in new and old[key] != new[key]:
                raise UserError(
                    f'"{path}" cannot be resumed, since it was trained with other settings '
                    f"(OPTIM.{setting}: {shown(old[key])} -> {shown(new[key])}); give its own"
                )


def origins_of(state: Mapping[str, Any], cfg: Any) -> list[dict[str, Any]]:
    """Return what results.json has to say of epochs that were not trained with the settings there.

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
