"""Loading of a run's configuration from files, flags and overrides."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from safeio.files import expanded

from .checks import check_values
from .defaults import get_cfg_default
from .node import CfgNode

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
        The frozen configuration.

    Raises:
        UserError: a file, a key or a value is wrong.
    """
    cfg = get_cfg_default()
    for path in (dataset_config_file, config_file):
        if path:
            cfg.merge_from_file(path)
    if callable(flag_overrides):
        flag_overrides(cfg)
    elif flag_overrides:
        for key, value in flag_overrides.items():
            cfg.set_value(key, value, source="the command line")
    cfg.merge_from_list(opts)
    for key in ("OUTPUT_DIR", "RESUME"):  # other paths are expanded by the code that reads them
        cfg[key] = expanded(cfg[key])
    check_values(cfg)
    cfg.freeze()
    return cfg
