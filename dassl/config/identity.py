"""Settings that identify a run.

The settings that existed when identities were first recorded (first_settings.txt) always count. A
newer one counts only if it differs from its default. So new methods, datasets and settings do not
change the identity of earlier runs. `UNUSED_RULES` exclude settings that a run does not use.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from .defaults import plain_defaults
from .node import to_dict

# Paths of a run, which do not affect its results.
NOT_IDENTITY = ("OUTPUT_DIR", "RESUME")
# Functions from a run's configuration to the newer settings that do not affect this run, such as
# another method's template in the dataset's file.
UNUSED_RULES: list[Callable[[Mapping[str, Any]], set[str]]] = []
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
    plain = to_dict(config)
    unused = set(NOT_IDENTITY).union(*(rule(plain) for rule in UNUSED_RULES))
    return _select(plain, plain_defaults(), "", unused)


def _select(
    config: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str, unused: set[str]
) -> dict[str, Any]:
    selected: dict[str, Any] = {}
    for name, value in config.items():
        path, default = f"{prefix}{name}", defaults.get(name, _MISSING)
        first = path in _first_settings()
        if path in unused:
            continue
        if isinstance(value, dict):
            group = _select(value, default if isinstance(default, dict) else {}, f"{path}.", unused)
            if group or first:
                selected[name] = group
        elif first or value != default:
            selected[name] = value
    return selected
