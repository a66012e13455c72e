"""Finding datasets by name."""

from typing import Any

from ...utils import Registry, collector_paused

DATASET_REGISTRY = Registry("DATASET")


def build_dataset(cfg: Any) -> Any:
    """Create the dataset that `cfg.DATASET.NAME` names.

    Raises:
        UserError: there is none of that name.
    """
    dataset_class = DATASET_REGISTRY.get(cfg.DATASET.NAME)
    if cfg.VERBOSE:
        print(f"Loading dataset: {cfg.DATASET.NAME}")
    with collector_paused():  # ImageNet's million images take a third of the time
        return dataset_class(cfg)
