"""Capabilities of a class: declared as class attributes, lowered where a class body may break them.

A class that defines a method that a capability depends on, and does not declare the capability in
the same body, has it lowered, and so have its subclasses. An author who knows better declares it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

# Hooks in which a class may gather something from batch to batch that the engine does not know of.
STEP_HOOKS = frozenset(
    {
        *("before_epoch", "run_epoch", "forward_backward", "parse_batch_train", "model_zero_grad"),
        *("model_backward", "model_update", "model_backward_and_update", "update_lr"),
    }
)


class Capability(NamedTuple):
    """When a class attribute is lowered.

    Attributes:
        hooks: the methods whose definition lowers it.
        lowered: its value then.
    """

    hooks: frozenset[str]
    lowered: Any = False


def lower_capabilities(cls: type, capabilities: Mapping[str, Capability]) -> None:
    """Set the class attributes of a new class; for its `__init_subclass__`.

    Args:
        cls: the class.
        capabilities: by the name of the attribute.
    """
    for name, capability in capabilities.items():
        # Only then: a mixin that declares nothing must not hide what a class behind it declares.
        if name not in vars(cls) and _is_lowered(cls, name, capability):
            setattr(cls, name, capability.lowered)


def _is_lowered(cls: type, name: str, capability: Capability) -> bool:
    """Whether the body of a class, or one of its bases, lowers a capability."""
    body = vars(cls)
    if name in body:  # declared or lowered
        return bool(body[name] == capability.lowered)
    breaks = bool(capability.hooks & body.keys())
    return breaks or any(_is_lowered(base, name, capability) for base in cls.__bases__)
