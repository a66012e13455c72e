"""Checks of configuration values before anything is loaded."""

from safeio.errors import UserError
from safeio.untrusted import short_repr

from ..utils.names import check_availability
from .hints import leaves
from .node import CfgNode, Config

_MINIMUM = {
    "DATALOADER.NUM_WORKERS": 0,
    "DATALOADER.K_TRANSFORMS": 1,
    "DATALOADER.CACHE_MB": 0,
    "DATALOADER.TRAIN_X.BATCH_SIZE": 1,
    "DATALOADER.TRAIN_U.BATCH_SIZE": 1,
    "DATALOADER.TEST.BATCH_SIZE": 1,
    "DATASET.TASKS": 0,
    "DATASET.TASK": 1,
    "OPTIM.LR": 0,
    "OPTIM.MAX_EPOCH": 0,
    "OPTIM.WEIGHT_DECAY": 0,
    "TRAIN.PRINT_FREQ": 1,
}

_CHOICES = {
    "INPUT.DECODE": ("auto", "as_viewed", "as_stored"),
    "DATALOADER.ON_BAD_IMAGE": ("error", "skip"),
    "TEST.SPLIT": ("test", "val"),
    "TEST.FINAL_MODEL": ("last_step", "best_val"),
    "DATASET.SUBSAMPLE_CLASSES": ("all", "base", "new"),
    "DATASET.TASK_CLASSES": ("own", "seen", "unseen"),
}


def check_values(cfg: Config) -> None:
    """Refuse invalid values.

    Raises:
        UserError: a value is invalid; the message states its key and the accepted values.
    """
    values = dict(leaves(cfg))
    for path, minimum in _MINIMUM.items():
        if not values[path] >= minimum:  # also true for NaN
            raise UserError(f"{path} is {short_repr(values[path])}, but must be at least {minimum}")
    for path, accepted in _CHOICES.items():
        try:
            check_availability(values[path], accepted)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
    size = cfg.INPUT.SIZE
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise UserError(f"INPUT.SIZE takes height and width in pixels, not {short_repr(size)}")
    _check_sample(cfg.DATASET)
    if not -(2**63) <= cfg.SEED < 2**63:
        raise UserError(f"SEED {cfg.SEED} does not fit into 64 bits")


def _check_sample(node: CfgNode) -> None:
    if node.TASKS and node.TASK > node.TASKS:
        raise UserError(
            f"DATASET.TASK is {node.TASK}, but must be from 1 to DATASET.TASKS, {node.TASKS}"
        )
    if node.NUM_TRAIN >= 1 and node.NUM_SHOTS >= 1:
        raise UserError(
            f"DATASET.NUM_TRAIN is {node.NUM_TRAIN}, images in all, and DATASET.NUM_SHOTS "
            f"is {node.NUM_SHOTS}, images a class; set one of the two to 0"
        )
