"""Build functions for the registries of networks."""

from collections.abc import Callable
from typing import Any

from ..utils import Registry


def builder(registry: Registry, kind: str) -> Callable[..., Any]:
    """Return the function `build(name, verbose=True, **kwargs)` of a registry; it prints `kind`."""

    def build(name: str, verbose: bool = True, **kwargs: Any) -> Any:
        network = registry.get(name)
        if verbose:
            print(f"{kind}: {name}")
        return network(**kwargs)

    return build
