"""Registries of classes by name, and the plug-ins whose import failed."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakSet

from safeio.errors import UserError

from .names import choices


class AlreadyRegistered(KeyError):
    """An object is registered under a name that is already in use."""

    def __init__(self, registry: "Registry", name: str, module: str) -> None:
        super().__init__(
            f'An object named "{name}" is already registered in {registry}, by {module}'
        )
        self.registry = registry
        self.name = name


@dataclass(frozen=True)
class SkippedPlugin:
    """A plug-in whose import failed.

    Attributes:
        file: its path, such as trainers/mine.py.
        reason: the error in one line.
        error: the exception.
    """

    file: str
    reason: str
    error: BaseException

    def __str__(self) -> str:
        return f"{self.file} cannot be imported ({self.reason})"


skipped_plugins: list[SkippedPlugin] = []
registries: "WeakSet[Registry]" = WeakSet()


def skipped_note() -> str:
    """Return the part of an error message that lists the skipped plug-ins, if any."""
    return "".join(f", and {plugin}" for plugin in skipped_plugins)


class Registry:
    """Maps names in the configuration to classes.

    Register with ``@REGISTRY.register()`` above a class or ``REGISTRY.register(cls)``; look up with
    ``REGISTRY.get("ClassName")``.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._objects: dict[str, Any] = {}
        self._ambiguous: dict[str, Any] = {}
        registries.add(self)

    def __str__(self) -> str:
        return self._name

    def drop(self, name: str) -> None:
        """Remove a name that several modules register, and refuse it from now on."""
        self._ambiguous[name] = self._objects.pop(name, None)

    def drop_unimported(self, package: str) -> None:
        """Remove the names that modules of a package registered before their import failed."""
        for name, obj in self.items():
            module = getattr(obj, "__module__", "")
            if module.startswith(f"{package}.") and module not in sys.modules:
                del self._objects[name]

    def register(self, obj: Any = None, force: bool = False) -> Any:
        """Register a class or function under its own name; without one, return a decorator.

        Returns:
            The decorator, or the object itself.

        Raises:
            AlreadyRegistered: the name is in use and `force` is False.
        """
        if obj is None:
            return partial(self.register, force=force)
        name = obj.__name__
        known = self._objects.get(name) or self._ambiguous.get(name)
        if known is not None and not force:
            raise AlreadyRegistered(self, name, getattr(known, "__module__", "?"))
        self._objects[name] = obj
        return obj

    def get(self, name: str) -> Any:
        """Return the object registered under a name.

        Raises:
            UserError: the name is unknown; the message lists the available names and the skipped
                plug-ins.
        """
        if name in self._objects:
            return self._objects[name]
        names = self.registered_names()
        if not names and not skipped_plugins:
            raise UserError(f'"{name}" is unknown: nothing is registered in {self}')
        cause = skipped_plugins[0].error if skipped_plugins else None
        raise UserError(
            f'"{name}" is not in the {self} registry{skipped_note()}{choices(name, names)}'
        ) from cause

    def registered_names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._objects)

    def __contains__(self, name: str) -> bool:
        return name in self._objects

    def items(self) -> list[tuple[str, Callable[..., Any]]]:
        """Return (name, object) pairs, sorted by name."""
        return sorted(self._objects.items())
