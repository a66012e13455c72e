"""Settings that identify a run.

The settings that existed when identities were first recorded (first_settings.txt) always count. A
newer one counts only if it differs from its default. So new methods, datasets and settings do not
change the identity of earlier runs.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from .defaults import plain_defaults
from .node import to_dict

# Paths of a run, which do not affect its results.
NOT_IDENTITY = ("OUTPUT_DIR", "RESUME")
_MISSING = object()


@lru_cache(maxsize=1)
def _first_settings() -> frozenset[str]:
    text = (Path(__file__).parent / "first_settings.txt").read_text(encoding="utf-8")
    return frozenset(text.split())


def identifying_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that identify a run, as nested dictionaries.

    Args:
        config: a run's whole configuration, as a node or as in results.json.
    """
    return _select(to_dict(config), plain_defaults(), "")


def _select(config: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    selected: dict[str, Any] = {}
    for name, value in config.items():
        path, default = f"{prefix}{name}", defaults.get(name, _MISSING)
        first = path in _first_settings()
        if path in NOT_IDENTITY:
            continue
        if isinstance(value, dict):
            group = _select(value, default if isinstance(default, dict) else {}, f"{path}.")
            if group or first:
                selected[name] = group
        elif first or value != default:
            selected[name] = value
    return selected
