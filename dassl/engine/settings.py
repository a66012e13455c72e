"""The settings that affect a run's results, and the differences between two runs."""

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
# Settings without effect on results: paths, device, data loading, progress output, extra files.
NOT_COMPARED = frozenset(
    {
        *("VERSION", "OUTPUT_DIR", "RESUME", "VERBOSE", "DEVICE", "USE_CUDA"),
        *("DATASET.ROOT", "DATALOADER.NUM_WORKERS", "DATALOADER.CACHE_MB", "TEST.FEATURE_CACHE"),
        *("TRAIN.PRINT_FREQ", "TRAIN.CHECKPOINT_FREQ"),
        *("TEST.PER_CLASS_RESULT", "TEST.COMPUTE_CMAT"),
    }
)


class Difference(NamedTuple):
    """A setting that differs between two configurations."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {short_repr(self.old)} -> {short_repr(self.new)}"


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a complete configuration that affect results, by dotted key."""
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
        old: `comparable` settings of a recorded run. Keys added since then have their defaults;
            keys that `new` does not contain are obsolete and ignored.
        new: `comparable` settings of the current run.
        longer: accept a higher OPTIM.MAX_EPOCH.
    """
    filled = old if old.keys() >= new.keys() else {**comparable(plain_defaults()), **old}
    found = []
    for key, value in new.items():
        before = _parsed_number(filled[key], value) if key in filled else value
        if before == value and isinstance(before, bool) == isinstance(value, bool):
            continue
        if longer and key == MAX_EPOCH and isinstance(before, int) and before < value:
            continue
        found.append(Difference(key, before, value))
    return found


def _parsed_number(recorded: Any, current: Any) -> Any:
    """Convert a number that a user wrote in config.yaml and YAML reads as text, such as 2e-3."""
    if isinstance(recorded, str) and not isinstance(current, str):
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            return to_dict(ast.literal_eval(recorded))
    return recorded


def recorded_settings(folder: PathLike) -> dict[str, Any] | None:
    """Read the `comparable` settings of the run in a folder from config.yaml or its checkpoints.

    Returns:
        The settings; None if they are missing or not readable, as in Dassl's own runs.
    """
    path = Path(folder) / CONFIG
    with suppress(UserError):
        config = read_yaml_layers(path)[-1][1] if path.is_file() else {}
        if "VERSION" in config:  # the last key, so the file is not truncated
            return comparable(config)
    folders = [CheckpointFolder(path.parent) for path in Path(folder).glob(f"*/{POINTER}")]
    for checkpoint in (Path(folder) / RESUME, *(folder.newest() for folder in folders)):
        with suppress(UserError):
            if checkpoint is not None and (found := settings_in(load_checkpoint(checkpoint))):
                return found
    return None


def settings_in(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the `comparable` settings in a checkpoint; None if unknown."""
    with suppress(ValueError, TypeError):
        settings = parse_json(state.get("settings", ""))
        return settings if isinstance(settings, dict) else None
    return None


def settings_json(config: Mapping[str, Any]) -> str:
    """Return the `comparable` settings as JSON, to be saved in a checkpoint."""
    return json.dumps(comparable(config), sort_keys=True)


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a complete configuration that identify a run in results.json."""
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
    """Return the entries of results.json about the run that trained the evaluated model.

    Args:
        model_dir: the run's folder; "" if no model was loaded.

    Returns:
        "model_dir" and "source_run", the run's `identity` and "config" (None without a usable
        config.yaml, as in Dassl's own runs); no entries if `model_dir` is empty.

    Raises:
        UserError: config.yaml is damaged.
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
