"""A table from names to classes, filled by decorators."""

from collections.abc import Callable
from typing import Any

from safeio.errors import UserError

from .names import choices


class Registry:
    """Maps the names used in configs to the classes that implement them.

    Use as ``@REGISTRY.register()`` above a class, or ``REGISTRY.register(cls)``; look up with
    ``REGISTRY.get("ClassName")``.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._objects: dict[str, Any] = {}

    def _add(self, name: str, obj: Any, force: bool) -> None:
        if name in self._objects and not force:
            raise KeyError(f'An object named "{name}" is already registered in {self._name}')
        self._objects[name] = obj

    def register(self, obj: Any = None, force: bool = False) -> Any:
        """Register a class or function under its own name.

        Args:
            obj: the object, or None to get a decorator.
            force: replace an object of the same name.

        Returns:
            The decorator, or the object itself.

        Raises:
            KeyError: the name is taken and `force` is not set.
        """
        if obj is None:

            def decorate(target: Any) -> Any:
                self._add(target.__name__, target, force)
                return target

            return decorate
        self._add(obj.__name__, obj, force)
        return obj

    def get(self, name: str) -> Any:
        """Return the object of that name.

        Raises:
            UserError: nothing of that name is registered; names the nearest and all others.
        """
        if name in self._objects:
            return self._objects[name]
        names = self.registered_names()
        if not names:
            raise UserError(f'"{name}" is unknown: nothing is registered in {self._name}')
        raise UserError(f'"{name}" is not in the {self._name} registry{choices(name, names)}')

    def registered_names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._objects)

    def __contains__(self, name: str) -> bool:
        return name in self._objects

    def items(self) -> list[tuple[str, Callable[..., Any]]]:
        """Return (name, object) pairs, sorted by name."""
        return sorted(self._objects.items())
