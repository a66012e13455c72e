"""Loading of a run's configuration from files, flags and overrides."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safeio.files import expanded

from .checks import check_values
from .defaults import get_cfg_default
from .hints import leaves
from .node import CfgNode, short_path

Overrides = Mapping[str, Any] | Callable[[CfgNode], None]

_readers: dict[str, tuple[Any, Callable[[str], bool]]] = {}


def declare_reader(path: str, default: Any, reads: Callable[[str], bool]) -> None:
    """Let datasets' files set a key that some trainers read; for others it keeps its default.

    So a dataset's value for one method does not change the identities of other methods' runs.

    Args:
        path: the key.
        default: its default value.
        reads: states of a trainer's name whether the trainer reads the key.
    """
    _readers[path] = default, reads


def reset_unread(cfg: CfgNode) -> None:
    """Set the keys of `declare_reader` that the configuration's trainer does not read."""
    for path, (default, reads) in _readers.items():
        if not reads(cfg.TRAINER.NAME):
            cfg.set_value(path, default, source="the defaults")


def load_config(
    dataset_config_file: str | None = None,
    config_file: str | None = None,
    flag_overrides: Overrides | None = None,
    opts: Sequence[str] = (),
) -> CfgNode:
    """Merge a run's configuration; later arguments override earlier ones.

    Args:
        dataset_config_file: YAML file of the dataset.
        config_file: YAML file of the method.
        flag_overrides: values from named flags, as {dotted path: value}, or a function that
            changes the configuration in place.
        opts: KEY VALUE pairs from the end of the command line.

    Returns:
        The frozen configuration.

    Raises:
        UserError: a file, a key or a value is wrong.
    """
    cfg = merge_files(dataset_config_file, config_file)
    if callable(flag_overrides):
        flag_overrides(cfg)
    elif flag_overrides:
        for key, value in flag_overrides.items():
            cfg.set_value(key, value, source="the command line")
    cfg.merge_from_list(opts)
    for key in ("OUTPUT_DIR", "RESUME"):  # other paths are expanded by the code that reads them
        cfg[key] = expanded(cfg[key])
    reset_unread(cfg)
    check_values(cfg)
    cfg.freeze()
    return cfg


def merge_files(dataset_config_file: str | None, config_file: str | None) -> CfgNode:
    """Return the defaults with both files merged, and notes on what the dataset's file sets.

    Raises:
        UserError: a file, a key or a value is wrong.
    """
    cfg = get_cfg_default()
    if dataset_config_file:
        defaults = dict(leaves(cfg))
        cfg.merge_from_file(dataset_config_file)
        file = short_path(Path(dataset_config_file))
        for key, value in leaves(cfg):
            if value != defaults[key] and not key.startswith(("DATASET.", "INPUT.")):
                cfg.add_note(f"{file} sets {key} {value!r}", key)
    if config_file:
        cfg.merge_from_file(config_file)
    return cfg
