"""Save and restore a trainer's plain attributes, such as counters and averages.

Besides models, optimisers, schedules and random generators, every checkpoint contains the plain
attributes that have changed since the start of the training: numbers, strings, tensors, and lists
and dictionaries of these. Other objects are not saved.
"""

import inspect
from typing import Any

import torch
from torch import Tensor

MAX_COMPARED_SIZE = 1 << 20  # elements; only smaller tensors are copied to detect changes
MAX_DEPTH = 20
_PLAIN = (bool, int, float, str, type(None))


def _engine_names(trainer: Any) -> frozenset[str]:
    """Return the attributes and methods of the engine's classes, which save their own state."""
    classes = [c for c in trainer.__class__.__mro__ if c.__module__.startswith(f"{__package__}.")]
    return frozenset(name for c in classes for name in (*vars(c), *inspect.get_annotations(c)))


def plain_attributes(trainer: Any) -> dict[str, Any]:
    """Return the trainer's plain attributes without copying them."""
    engine = _engine_names(trainer)
    models = trainer._models.values()
    saved = {id(tensor) for m in models for tensor in (*m.parameters(), *m.buffers())}
    return {
        name: value
        for name, value in vars(trainer).items()
        if name not in engine and id(value) not in saved and _is_plain(value)
    }


def _is_plain(value: Any, level: int = 0) -> bool:
    if type(value) in _PLAIN:
        return True
    if isinstance(value, Tensor):
        return value.layout is torch.strided and not value.is_meta
    if level == MAX_DEPTH or type(value) not in (list, tuple, dict):
        return False
    if isinstance(value, dict) and not all(type(key) in _PLAIN for key in value):
        return False
    items = value.values() if isinstance(value, dict) else value
    return all(_is_plain(item, level + 1) for item in items)


def _map_tensors(value: Any, function: Any) -> Any:
    """Apply a function to all tensors in a plain value; lists and dictionaries are copied."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: _map_tensors(item, function) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_map_tensors(item, function) for item in value)
    return value


def _fingerprint(tensor: Tensor) -> Any:
    """Return a copy of a small tensor; address, version and shape of a large one."""
    if tensor.numel() <= MAX_COMPARED_SIZE:
        return tensor.detach().clone()
    return (tensor.data_ptr(), tensor._version, tuple(tensor.shape))


def fingerprints(trainer: Any) -> dict[str, Any]:
    """Return the fingerprints of all plain attributes, for `changed_attributes`."""
    plain = plain_attributes(trainer)
    return {name: _map_tensors(value, _fingerprint) for name, value in plain.items()}


def changed_attributes(trainer: Any, before: dict[str, Any]) -> dict[str, Any]:
    """Return the trainer's plain attributes that differ from their `fingerprints`.

    Returns:
        "values", name -> value with copied tensors, and "accelerated", the names of those on an
        accelerator.
    """
    values, accelerated = {}, []
    for name, value in plain_attributes(trainer).items():
        if name in before and _equal(_map_tensors(value, _fingerprint), before[name]):
            continue
        values[name] = _map_tensors(value, lambda tensor: tensor.detach().clone())
        devices: set[str] = set()
        _map_tensors(value, lambda tensor, found=devices: found.add(tensor.device.type))
        if devices - {"cpu"}:
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


def restore_attributes(trainer: Any, state: Any) -> None:
    """Restore the result of `changed_attributes`; ignore entries that are not plain attributes."""
    values = state.get("values") if isinstance(state, dict) else None
    engine = _engine_names(trainer)
    for name, value in values.items() if isinstance(values, dict) else ():
        if not isinstance(name, str) or not _is_plain(value):
            continue
        if name in engine or callable(getattr(trainer.__class__, name, None)):
            continue
        current = vars(trainer).get(name)
        if isinstance(current, Tensor) and current.requires_grad and current.is_leaf:
            with torch.no_grad():  # in place, because an optimiser may reference it
                current.copy_(value)
            continue
        device = trainer.device if name in state.get("accelerated", ()) else "cpu"
        copied = _map_tensors(value, lambda tensor, to=device: tensor.to(to, copy=True))
        setattr(trainer, name, copied)
