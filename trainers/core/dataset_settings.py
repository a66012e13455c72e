"""Settings of methods that datasets' files state, such as a template for the class names.

They identify the runs of their own method alone, so that a dataset's value for one method does not
change the identities of other methods' runs.
"""

from collections.abc import Mapping
from typing import Any

from dassl.config import UNUSED_RULES
from dassl.engine import TRAINER_REGISTRY

_KEYS: dict[str, tuple[str, ...]] = {}


def declare_dataset_settings(node: str, *keys: str) -> None:
    """Declare keys of cfg.TRAINER.`node` that datasets' files state."""
    _KEYS[node] = keys


def _unused(config: Mapping[str, Any]) -> set[str]:
    """Return the declared keys that the trainer of a configuration does not use."""
    trainer = dict(TRAINER_REGISTRY.items()).get(config["TRAINER"]["NAME"])
    own = getattr(trainer, "node", None)
    return {f"TRAINER.{node}.{key}" for node in _KEYS if node != own for key in _KEYS[node]}


UNUSED_RULES.append(_unused)
