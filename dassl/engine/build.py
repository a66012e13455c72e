"""Finding trainers by name."""

from collections.abc import Callable
from typing import Any

from ..config import complete_config
from ..utils import Registry, collect_env_info, set_random_seed
from .trainer import TrainerX

TRAINER_REGISTRY = Registry("TRAINER")
# Called with a trainer's class and the configuration, for settings that not every trainer can use.
TRAINER_CHECKS: list[Callable[[Any, Any], None]] = []


def find_trainer(cfg: Any) -> Any:
    """Return the class that `cfg.TRAINER.NAME` names.

    Raises:
        UserError: there is none of that name, or one of `TRAINER_CHECKS` refuses it.
    """
    trainer_class = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    for check in TRAINER_CHECKS:
        check(trainer_class, cfg)
    return trainer_class


def learns(cfg: Any) -> bool:
    """Whether there is something to test only when the trainer has been trained.

    A trainer that does not learn says so by its class attribute `learns`; one without a training
    step of its own, as CoOp's zero-shot trainers are, does not either.

    Raises:
        UserError: see `find_trainer`.
    """
    trainer_class = find_trainer(cfg)
    steps = ("forward_backward", "run_epoch")
    has_step = any(getattr(trainer_class, s, None) is not getattr(TrainerX, s) for s in steps)
    return has_step and getattr(trainer_class, "learns", True)


def build_trainer(cfg: Any, overwrite: bool = False) -> Any:
    """Create the trainer that `cfg.TRAINER.NAME` names.

    Args:
        cfg: the configuration; keys that it lacks get their defaults, in a copy.
        overwrite: what the trainer does replaces the run that cfg.OUTPUT_DIR holds. By default a
            finished run, or one of another configuration, is refused.

    Raises:
        UserError: see `find_trainer`, and whatever the trainer refuses.
    """
    cfg = complete_config(cfg)
    trainer_class = find_trainer(cfg)
    if cfg.VERBOSE:
        print(f"Loading trainer: {cfg.TRAINER.NAME}")
    trainer = trainer_class(cfg)
    trainer.overwrite = overwrite
    return trainer


def check_trainer(cfg: Any) -> None:
    """Refuse what the trainer would refuse before it loads anything.

    Raises:
        UserError: see `find_trainer`, and the trainer's `check_cfg`.
    """
    cfg = complete_config(cfg)
    trainer_class = find_trainer(cfg)
    check = getattr(trainer_class, "check_cfg", None)
    if check is not None:
        # As in its construction, where nothing of it exists when its configuration is checked.
        check(trainer_class.__new__(trainer_class), cfg)


def build_and_seed(cfg: Any, overwrite: bool = False) -> Any:
    """Seed all generators, print the configuration and the environment, and build the trainer.

    Args:
        cfg: the configuration.
        overwrite: see `build_trainer`.

    Raises:
        UserError: see `build_trainer`.
    """
    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)
    print(f"** Config **\n{cfg}\n** Environment **\n{collect_env_info()}")
    return build_trainer(cfg, overwrite)
