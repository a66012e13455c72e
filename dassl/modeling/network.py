"""Other networks by name."""

from typing import Any

from ..utils import Registry

NETWORK_REGISTRY = Registry("NETWORK")


def build_network(name: str, verbose: bool = True, **kwargs: Any) -> Any:
    """Create a network.

    Args:
        name: as registered.
        verbose: print it.
        **kwargs: for the network.

    Raises:
        UserError: there is none of that name.
    """
    network = NETWORK_REGISTRY.get(name)
    if verbose:
        print(f"Network: {name}")
    return network(**kwargs)
