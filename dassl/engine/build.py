"""Finding trainers by name."""

from typing import Any

from ..utils import Registry

TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg: Any) -> Any:
    """Create the trainer that `cfg.TRAINER.NAME` names.

    Raises:
        UserError: there is none of that name.
    """
    trainer_class = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if cfg.VERBOSE:
        print(f"Loading trainer: {cfg.TRAINER.NAME}")
    return trainer_class(cfg)
