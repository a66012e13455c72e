"""Registry of other networks."""

from ..utils import Registry
from .build import builder

NETWORK_REGISTRY = Registry("NETWORK")
build_network = builder(NETWORK_REGISTRY, "Network")
