"""The state in a trainer's own plain attributes, such as counters and averages.

Models, optimisers, schedules and random generators are saved by name. A method may also have
numbers, texts, tensors, and lists and dictionaries of them, as attributes: those that have changed
since the training began are part of every checkpoint. Other objects are not known to be state.
"""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

LARGEST_COMPARED = 1 << 20  # elements of a tensor that is copied to see whether it changes
DEEPEST = 20
_PLAIN = (bool, int, float, str, type(None))


def _engine_names(trainer: Any) -> frozenset[str]:
    """What the engine's classes declare: attributes that it saves itself or sets anew, methods."""
    classes = [c for c in trainer.__class__.__mro__ if c.__module__.startswith(f"{__package__}.")]
    return frozenset(name for c in classes for name in (*vars(c), *inspect.get_annotations(c)))


def plain_attributes(trainer: Any) -> dict[str, Any]:
    """Return the trainer's own attributes that are plain values or tensors, as they are."""
    engine = _engine_names(trainer)
    learned = {id(tensor) for model in trainer._models.values() for tensor in _tensors_of(model)}
    return {
        name: value
        for name, value in vars(trainer).items()
        if name not in engine and id(value) not in learned and _is_plain(value)
    }


def _tensors_of(model: Any) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _is_plain(value: Any, level: int = 0) -> bool:
    if type(value) in _PLAIN:
        return True
    if isinstance(value, Tensor):
        return value.layout is torch.strided and not value.is_meta
    if level == DEEPEST or type(value) not in (list, tuple, dict):
        return False
    if isinstance(value, dict) and not all(type(key) in _PLAIN for key in value):
        return False
    items = value.values() if isinstance(value, dict) else value
    return all(_is_plain(item, level + 1) for item in items)


def _mapped(value: Any, change: Any) -> Any:
    """Apply a function to all tensors in a plain value; lists and dictionaries are copied."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_mapped(item, change) for item in value)
    return value


def _fingerprint(tensor: Tensor) -> Any:
    """What tells whether a tensor has changed: a copy, or of a large one where and which it is."""
    if tensor.numel() <= LARGEST_COMPARED:
        return tensor.detach().clone()
    return (tensor.data_ptr(), tensor._version, tuple(tensor.shape))


def fingerprints(trainer: Any) -> dict[str, Any]:
    """Return what `changed_attributes` compares with, before anything changes."""
    return {name: _mapped(value, _fingerprint) for name, value in plain_attributes(trainer).items()}


def changed_attributes(trainer: Any, before: dict[str, Any]) -> dict[str, Any]:
    """Return the trainer's own plain attributes that differ from their `fingerprints`.

    Returns:
        "values" by name, whose tensors are copies, and which of them are on an accelerator.
    """
    values, accelerated = {}, []
    for name, value in plain_attributes(trainer).items():
        if name in before and _equal(_mapped(value, _fingerprint), before[name]):
            continue
        values[name] = _mapped(value, lambda tensor: tensor.detach().clone())
        if _on_accelerator(value):
            accelerated.append(name)
    return {"values": values, "accelerated": accelerated}


def _equal(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        same = one.dtype == other.dtype and one.device == other.device
        return same and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(_equal(a, b) for a, b in pairs)
    return bool(one == other)


def _on_accelerator(value: Any) -> bool:
    found: list[bool] = []
    _mapped(value, lambda tensor: found.append(tensor.device.type != "cpu"))
    return any(found)


def restore_attributes(trainer: Any, state: Any) -> None:
    """Put back what `changed_attributes` returned; what has another form is left out."""
    values = state.get("values") if isinstance(state, dict) else None
    engine = _engine_names(trainer)
    for name, value in values.items() if isinstance(values, dict) else ():
        if not isinstance(name, str) or not _is_plain(value):
            continue
        if name in engine or callable(getattr(trainer.__class__, name, None)):
            continue
        present = vars(trainer).get(name)
        if isinstance(present, Tensor) and present.requires_grad and present.is_leaf:
            with torch.no_grad():  # an optimiser may have it
                present.copy_(value)
            continue
        device = trainer.device if name in state.get("accelerated", ()) else "cpu"
        setattr(trainer, name, _mapped(value, lambda tensor, to=device: tensor.to(to, copy=True)))
