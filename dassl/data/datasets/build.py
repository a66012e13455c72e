"""Finding datasets by name."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...config import Config
from ...utils import Registry

DATASET_REGISTRY = Registry("DATASET")
_PARTS = ("train_x", "train_u", "val", "test")


def build_dataset(cfg: Config) -> Any:
    """Create the dataset that `cfg.DATASET.NAME` names.

    Raises:
        UserError: there is none of that name, or the configuration names domains that it does not
            have.
    """
    dataset_class = DATASET_REGISTRY.get(cfg.DATASET.NAME)
    if cfg.VERBOSE:
        print(f"Loading dataset: {cfg.DATASET.NAME}")
    with _collector_paused():  # ImageNet's million images take a third of the time
        dataset = dataset_class(cfg)
    _check_domains(cfg, dataset)
    return dataset


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep Python's collector of cycles from searching a million new objects again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _check_domains(cfg: Config, dataset: Any) -> None:
    """Refuse domains that a dataset does not have, also where its own class does not look.

    Raises:
        UserError: there are such.
    """
    names = [*cfg.DATASET.SOURCE_DOMAINS, *cfg.DATASET.TARGET_DOMAINS]
    check = getattr(dataset, "is_input_domain_valid", None)
    if not names or check is None:
        return
    # A class may read the domains without listing all that there are; its images then have several.
    if dataset.domains or not _has_domains(dataset):
        check(names)


def _has_domains(dataset: Any) -> bool:
    lists = (getattr(dataset, part, None) or () for part in _PARTS)
    return any(item.domain > 0 for items in lists for item in items)
