"""Dataset registry."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...config import Config
from ...utils import Registry

DATASET_REGISTRY = Registry("DATASET")
_PARTS = ("train_x", "train_u", "val", "test")


def build_dataset(cfg: Config) -> Any:
    """Create the dataset `cfg.DATASET.NAME`.

    Raises:
        UserError: the dataset or one of the configured domains does not exist.
    """
    dataset_class = DATASET_REGISTRY.get(cfg.DATASET.NAME)
    if cfg.VERBOSE:
        print(f"Loading dataset: {cfg.DATASET.NAME}")
    with _without_gc():  # ImageNet's million images take a third of the time
        dataset = dataset_class(cfg)
    _check_domains(cfg, dataset)
    return dataset


@contextmanager
def _without_gc() -> Iterator[None]:
    """Disable garbage collection, which would search a million new objects again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _check_domains(cfg: Config, dataset: Any) -> None:
    """Refuse domains that the dataset does not have, even if its class does not check them.

    Raises:
        UserError: a domain does not exist.
    """
    names = [*cfg.DATASET.SOURCE_DOMAINS, *cfg.DATASET.TARGET_DOMAINS]
    check = getattr(dataset, "is_input_domain_valid", None)
    if not names or check is None:
        return
    # A class may use domains without declaring them; its images are then in several domains.
    if dataset.domains or not _has_domains(dataset):
        check(names)


def _has_domains(dataset: Any) -> bool:
    lists = (getattr(dataset, part, None) or () for part in _PARTS)
    return any(item.domain > 0 for items in lists for item in items)
