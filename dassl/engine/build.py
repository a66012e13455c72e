"""Trainer registry: find, check and build the trainer of a configuration."""

from collections.abc import Callable
from typing import Any

from ..config import complete_config
from ..utils import Registry, collect_env_info, set_random_seed

TRAINER_REGISTRY = Registry("TRAINER")
# Called with the trainer class and the configuration; they refuse settings it does not support.
TRAINER_CHECKS: list[Callable[[Any, Any], None]] = []


def find_trainer(cfg: Any) -> Any:
    """Return the trainer class named by `cfg.TRAINER.NAME`.

    Raises:
        UserError: the name is not registered, or one of `TRAINER_CHECKS` refuses a setting.
    """
    trainer_class = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    for check in TRAINER_CHECKS:
        check(trainer_class, cfg)
    return trainer_class


def learns(cfg: Any) -> bool:
    """Return whether the trainer must be trained before it can be tested; see `TrainerBase.learns`.

    Raises:
        UserError: see `find_trainer`.
    """
    return bool(getattr(find_trainer(cfg), "learns", True))


def build_trainer(cfg: Any, overwrite: bool = False) -> Any:
    """Create the trainer named by `cfg.TRAINER.NAME`.

    Args:
        cfg: the configuration; missing keys get their defaults in a copy.
        overwrite: replace the run in cfg.OUTPUT_DIR. By default the trainer refuses a folder with
            a finished run or a run of another configuration.

    Raises:
        UserError: see `find_trainer`, or the trainer refuses the configuration.
    """
    cfg = complete_config(cfg)
    trainer_class = find_trainer(cfg)
    if cfg.VERBOSE:
        print(f"Loading trainer: {cfg.TRAINER.NAME}")
    trainer = trainer_class(cfg)
    trainer.overwrite = overwrite
    return trainer


def check_trainer(cfg: Any) -> None:
    """Check the configuration with the trainer's `check_cfg`, without loading anything.

    Raises:
        UserError: see `find_trainer`, or `check_cfg` refuses the configuration.
    """
    cfg = complete_config(cfg)
    trainer_class = find_trainer(cfg)
    check = getattr(trainer_class, "check_cfg", None)
    if check is not None:
        # An uninitialised instance, as in the constructor, which calls check_cfg first.
        check(trainer_class.__new__(trainer_class), cfg)


def build_and_seed(cfg: Any, overwrite: bool = False) -> Any:
    """Seed all generators, print configuration and environment, and build the trainer.

    Args:
        cfg: the configuration.
        overwrite: see `build_trainer`.

    Raises:
        UserError: see `build_trainer`.
    """
    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)
    for note in getattr(cfg, "notes", ()):
        print(f"Note: {note}")
    print(f"** Config **\n{cfg}\n** Environment **\n{collect_env_info()}")
    return build_trainer(cfg, overwrite)
