"""The models that a trainer trains, by name, with their optimisers and schedules."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from ..utils.checkpoint import load_state

Names = str | Sequence[str] | None


class ModelRegistry:
    """Registered models, in order.

    Attributes:
        models: the modules that learn, by name.
        optims: their optimisers; None for one that does not learn.
        scheds: their learning-rate schedules.
    """

    def __init__(self) -> None:
        self.models: OrderedDict[str, Any] = OrderedDict()
        self.optims: OrderedDict[str, Any] = OrderedDict()
        self.scheds: OrderedDict[str, Any] = OrderedDict()

    def register(self, name: str, model: Any, optim: Any, sched: Any) -> None:
        """Add a model.

        Args:
            name: also the name of its folder of checkpoints.
            model: the module that learns.
            optim: its optimiser; None when it does not learn.
            sched: its learning-rate schedule.

        Raises:
            ValueError: the name is taken.
        """
        if name in self.models:
            raise ValueError(f'A model named "{name}" is already registered')
        self.models[name], self.optims[name], self.scheds[name] = model, optim, sched

    def names(self, names: Names = None) -> list[str]:
        """Return the given names as a list, or all; ValueError for an unknown one."""
        if names is None:
            return list(self.models)
        wanted = [names] if isinstance(names, str) else list(names)
        for name in wanted:
            if name not in self.models:
                raise ValueError(f'No model is registered as "{name}"')
        return wanted

    def optimizers(self, names: Names = None) -> Iterator[Any]:
        """Yield the optimisers of the given models, or of all."""
        optims = (self.optims[name] for name in self.names(names))
        return (optim for optim in optims if optim is not None)

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Return the state_dict, optimizer and scheduler of each model; tensors are not copied."""
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
        """Put back what `state_dict` returned.

        Args:
            states: by name of the model; each may have the "path" of its own file.
            epoch: after how many epochs it was saved.
            path: the file that they come from.

        Raises:
            UserError: it belongs to another model.
        """
        for name in self.models:
            # A copy, since an optimiser changes the tensors that it is given.
            state = {"epoch": epoch, "path": path, **deepcopy(states.get(name, {}))}
            objects = (self.models[name], self.optims[name], self.scheds[name])
            load_state(state["path"], state, *objects)
