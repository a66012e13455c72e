"""Creating the networks that registries name."""

from collections.abc import Callable
from typing import Any

from ..utils import Registry


def builder(registry: Registry, kind: str) -> Callable[..., Any]:
    """Return the function `build(name, verbose=True, **kwargs)` of a registry.

    Args:
        registry: of networks; what it holds is called with `kwargs`.
        kind: the word before the name that `verbose` prints.
    """

    def build(name: str, verbose: bool = True, **kwargs: Any) -> Any:
        network = registry.get(name)
        if verbose:
            print(f"{kind}: {name}")
        return network(**kwargs)

    return build
