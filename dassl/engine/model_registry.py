"""Registry of a trainer's models, their optimisers and learning-rate schedules."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from ..utils.checkpoint import load_state

Names = str | Sequence[str] | None


class ModelRegistry:
    """Models by name, in the order of their registration.

    Attributes:
        models: name -> module.
        optims: name -> optimiser, or None for a frozen model.
        scheds: name -> learning-rate schedule, or None.
    """

    def __init__(self) -> None:
        self.models: OrderedDict[str, Any] = OrderedDict()
        self.optims: OrderedDict[str, Any] = OrderedDict()
        self.scheds: OrderedDict[str, Any] = OrderedDict()

    def register(self, name: str, model: Any, optim: Any, sched: Any) -> None:
        """Add a model with its optimiser, None for a frozen model, and its schedule, if any.

        Raises:
            ValueError: the name is already registered.
        """
        if name in self.models:
            raise ValueError(f'A model named "{name}" is already registered')
        self.models[name], self.optims[name], self.scheds[name] = model, optim, sched

    def names(self, names: Names = None) -> list[str]:
        """Return the names as a list, by default all.

        Raises:
            ValueError: a name is not registered.
        """
        if names is None:
            return list(self.models)
        requested = [names] if isinstance(names, str) else list(names)
        for name in requested:
            if name not in self.models:
                raise ValueError(f'No model is registered as "{name}"')
        return requested

    def optimizers(self, names: Names = None) -> Iterator[Any]:
        """Yield the optimisers of the named models, by default of all."""
        optims = (self.optims[name] for name in self.names(names))
        return (optim for optim in optims if optim is not None)

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Return state_dict, optimizer and scheduler of each model; tensors are not copied."""
        parts = {"state_dict": self.models, "optimizer": self.optims, "scheduler": self.scheds}
        return {
            name: {
                part: objects[name].state_dict() if objects[name] is not None else None
                for part, objects in parts.items()
            }
            for name in self.models
        }

    def load_state_dict(
        self, states: Mapping[str, Any], epoch: Any = None, path: Path | None = None
    ) -> None:
        """Restore the result of `state_dict`; a state may have the "path" of its file for messages.

        Raises:
            UserError: a state does not fit the model.
        """
        for name in self.models:
            # A copy, because an optimiser modifies the tensors that it loads.
            state = {"epoch": epoch, "path": path, **deepcopy(states.get(name, {}))}
            objects = (self.models[name], self.optims[name], self.scheds[name])
            load_state(state["path"], state, *objects)
