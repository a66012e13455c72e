"""Capabilities: class attributes that are lowered when a subclass may invalidate them.

If a class body overrides a method that a capability depends on and does not declare the capability,
the capability is lowered for this class and its subclasses. Declaring the attribute prevents this.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

# Methods in which a class may accumulate state from batch to batch that the engine cannot save.
STEP_HOOKS = frozenset(
    {
        *("before_epoch", "run_epoch", "forward_backward", "parse_batch_train", "model_zero_grad"),
        *("model_backward", "model_update", "model_backward_and_update", "update_lr"),
    }
)


class Capability(NamedTuple):
    """Condition under which a class attribute is lowered.

    Attributes:
        hooks: names of the methods; overriding one lowers the attribute.
        lowered: the attribute's value after that.
    """

    hooks: frozenset[str]
    lowered: Any = False


def lower_capabilities(cls: type, capabilities: Mapping[str, Capability]) -> None:
    """Set the lowered class attributes of a new class; called by `__init_subclass__`."""
    for name, capability in capabilities.items():
        # Do not set it otherwise: a mixin must not hide the declaration of a class behind it.
        if name not in vars(cls) and _is_lowered(cls, name, capability):
            setattr(cls, name, capability.lowered)


def _is_lowered(cls: type, name: str, capability: Capability) -> bool:
    """Return whether a class body or one of its bases lowers a capability."""
    body = vars(cls)
    if name in body:  # declared or lowered
        return bool(body[name] == capability.lowered)
    overrides = bool(capability.hooks & body.keys())
    return overrides or any(_is_lowered(base, name, capability) for base in cls.__bases__)
