"""A run's identity: the settings that decide about its numbers, and in which two runs differ."""

import ast
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from safeio.errors import UserError
from safeio.files import PathLike
from safeio.untrusted import parse_json, short_repr

from ..config import to_dict
from ..config.defaults import plain_defaults
from ..config.node import read_yaml_layers
from ..utils import CheckpointFolder, load_checkpoint
from ..utils.checkpoint_folder import POINTER
from .run_files import CONFIG, RESUME

MAX_EPOCH = "OPTIM.MAX_EPOCH"
# Settings that change no number of a run: where it is, what it prints and saves on the way.
NOT_COMPARED = frozenset(
    {
        *("VERSION", "OUTPUT_DIR", "RESUME", "VERBOSE", "DEVICE", "USE_CUDA"),
        *("DATASET.ROOT", "DATALOADER.NUM_WORKERS", "DATALOADER.CACHE_MB", "TEST.FEATURE_CACHE"),
        *("TRAIN.PRINT_FREQ", "TRAIN.CHECKPOINT_FREQ"),
        *("TEST.PER_CLASS_RESULT", "TEST.COMPUTE_CMAT"),
    }
)


class Difference(NamedTuple):
    """A setting that two configurations do not share."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {short_repr(self.old)} -> {short_repr(self.new)}"


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that decide about a run's numbers, by dotted key.

    Args:
        config: a whole configuration, as a node or as plain dictionaries.
    """
    flat = _flat(to_dict(config))
    return {key: value for key, value in flat if key not in NOT_COMPARED}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], longer: bool = False
) -> list[Difference]:
    """List the settings in which two runs differ.

    Args:
        old: what `comparable` gave of a recorded run. A key that it lacks had its default: it was
            recorded before there was such a key. A key that `new` lacks decides nothing any more.
        new: what `comparable` gives of the present one.
        longer: accept a higher OPTIM.MAX_EPOCH.
    """
    filled = old if old.keys() >= new.keys() else {**comparable(plain_defaults()), **old}
    found = []
    for key, value in new.items():
        before = _value_of(filled[key], value) if key in filled else value
        if before == value and isinstance(before, bool) == isinstance(value, bool):
            continue
        if longer and key == MAX_EPOCH and isinstance(before, int) and before < value:
            continue
        found.append(Difference(key, before, value))
    return found


def _value_of(recorded: Any, present: Any) -> Any:
    """A number that a user has written into config.yaml as YAML does not read it, such as 2e-3."""
    if isinstance(recorded, str) and not isinstance(present, str):
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            return to_dict(ast.literal_eval(recorded))
    return recorded


def recorded_settings(folder: PathLike) -> dict[str, Any] | None:
    """Return what decides about the run in a folder, from its config.yaml or its checkpoints.

    Returns:
        As `comparable`; None where nothing readable says it, as with Dassl's own runs.
    """
    path = Path(folder) / CONFIG
    with suppress(UserError):
        config = read_yaml_layers(path)[-1][1] if path.is_file() else {}
        if "VERSION" in config:  # the last key: without it the file has been cut off
            return comparable(config)
    folders = [CheckpointFolder(path.parent) for path in Path(folder).glob(f"*/{POINTER}")]
    for checkpoint in (Path(folder) / RESUME, *(folder.newest() for folder in folders)):
        with suppress(UserError):
            if checkpoint is not None and (found := settings_in(load_checkpoint(checkpoint))):
                return found
    return None


def settings_in(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the settings that a checkpoint was trained with, as `comparable`; None if unknown."""
    with suppress(ValueError, TypeError):
        settings = parse_json(state.get("settings", ""))
        return settings if isinstance(settings, dict) else None
    return None


def settings_text(config: Mapping[str, Any]) -> str:
    """Return what a checkpoint says about the settings that it was trained with."""
    return json.dumps(comparable(config), sort_keys=True)


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that tell a run from others, as they stand in results.json.

    Args:
        config: a run's whole configuration, as a node or as plain dictionaries.
    """
    dataset = config["DATASET"]
    return {
        "trainer": config["TRAINER"]["NAME"],
        "dataset": dataset["NAME"],
        "shots": dataset["NUM_SHOTS"],
        "seed": config["SEED"],
        "backbone": config["MODEL"]["BACKBONE"]["NAME"],
        "subsample_classes": dataset["SUBSAMPLE_CLASSES"],
        "target_domains": list(dataset["TARGET_DOMAINS"]),
    }


def source_entries(model_dir: PathLike) -> dict[str, Any]:
    """Say for results.json which run the tested model comes from.

    Args:
        model_dir: folder of the run that trained it; empty when nothing was loaded.

    Returns:
        "model_dir", the folder as it was given, and "source_run", that run's `identity` and
        "config"; None where no config.yaml of ours says it, as with Dassl's own runs. Nothing at
        all without a folder.

    Raises:
        UserError: the config.yaml is damaged.
    """
    if not model_dir:
        return {}
    path = Path(model_dir) / CONFIG
    source = None
    with suppress(KeyError, TypeError):
        if path.is_file():
            _, config = read_yaml_layers(path)[-1]
            source = {**identity(config), "config": config}
    return {"model_dir": str(model_dir), "source_run": source}
