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
        The frozen configuration. Its `notes` state what the dataset's file sets besides the data.

    Raises:
        UserError: a file, a key or a value is wrong.
    """
    cfg = get_cfg_default()
    if dataset_config_file:
        cfg.merge_from_file(dataset_config_file)
    of_dataset = _method_settings(cfg)
    if config_file:
        cfg.merge_from_file(config_file)
    if callable(flag_overrides):
        flag_overrides(cfg)
    elif flag_overrides:
        for key, value in flag_overrides.items():
            cfg.set_value(key, value, source="the command line")
    cfg.merge_from_list(opts)
    for key in ("OUTPUT_DIR", "RESUME"):  # other paths are expanded by the code that reads them
        cfg[key] = expanded(cfg[key])
    check_values(cfg)
    for setting in sorted(of_dataset & _method_settings(cfg, cfg.TRAINER.NAME)):
        cfg.notes.append(f"{short_path(Path(str(dataset_config_file)))} sets {setting}")
    cfg.freeze()
    return cfg


def _method_settings(cfg: CfgNode, trainer: str = "") -> set[str]:
    """Return "KEY VALUE" of all settings that are neither defaults nor about the data.

    Args:
        cfg: the configuration.
        trainer: leave out the groups of other trainers; CoOpNemesis has COOP and NEMESIS.
    """
    left_out = ["DATASET.", "INPUT."]
    if trainer:
        others = [group for group in cfg.TRAINER if group not in trainer.upper()]
        left_out += [f"TRAINER.{group}." for group in others]
    defaults = dict(leaves(get_cfg_default()))
    return {
        f"{key} {value!r}"
        for key, value in leaves(cfg)
        if value != defaults.get(key) and not key.startswith(tuple(left_out))
    }
