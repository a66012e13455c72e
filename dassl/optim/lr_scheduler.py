"""Learning-rate schedules over epochs in closed form, with Dassl's warm-up.

Let f be the schedule without warm-up and W the number of warm-up epochs. In epoch E >= W the rate
is lr * f(t) / f(t0), where t = E - W and t0 = 0 if the count restarts after the warm-up
(WARMUP_RECOUNT), otherwise t = E and t0 = W. Dassl also starts at the full lr in the latter case,
because its schedules multiply the rate of the previous epoch.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from safeio.errors import UserError

from ..config import Config
from ..utils import check_availability
from .warmup import ConstantWarmupScheduler, LinearWarmupScheduler

__all__ = [
    "AVAI_SCHEDS",
    "ConstantWarmupScheduler",
    "LinearWarmupScheduler",
    "WarmupScheduler",
    "build_lr_scheduler",
]

AVAI_SCHEDS = ["single_step", "multi_step", "cosine"]

Factor = Callable[[int], float]


def _factor(optim_cfg: Config) -> Factor:
    """Return f, which maps an epoch to a fraction of the learning rate, without warm-up."""
    steps = optim_cfg.STEPSIZE
    gamma: float = optim_cfg.GAMMA
    if optim_cfg.LR_SCHEDULER == "cosine":
        return lambda epoch: (1 + math.cos(math.pi * epoch / optim_cfg.MAX_EPOCH)) / 2
    if optim_cfg.LR_SCHEDULER == "multi_step":
        if not isinstance(steps, list | tuple):
            raise UserError(f"OPTIM.STEPSIZE is {steps!r}, but multi_step needs a list of epochs")
        return lambda epoch: gamma ** sum(step <= epoch for step in steps)
    size = steps[-1] if isinstance(steps, list | tuple) else steps
    if not isinstance(size, int):
        raise UserError(f"OPTIM.STEPSIZE is {size!r}, but must be a whole number of epochs")
    width = size if size > 0 else optim_cfg.MAX_EPOCH
    return lambda epoch: gamma ** (epoch // width)


class WarmupScheduler(LRScheduler):
    """Scheduler with the formula of this module; `step()` starts the next epoch.

    Args:
        optimizer: the current rates of its groups are the full rates.
        factor: f, which maps an epoch to a fraction of the full rate.
        warmup_epoch: W; 0 or less for no warm-up.
        warmup_type: constant (`cons_lr`) or linear (`min_lr` in epoch 0, then lr * E / W).
        cons_lr: rate during a constant warm-up.
        min_lr: rate in epoch 0 of a linear warm-up.
        recount: count the epochs of the schedule from the end of the warm-up.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: Factor,
        warmup_epoch: int = 0,
        warmup_type: str = "constant",
        cons_lr: float = 1e-5,
        min_lr: float = 1e-5,
        recount: bool = True,
    ) -> None:
        self._factor = factor
        self._warmup = max(warmup_epoch, 0)
        self._warmup_lr = cons_lr if warmup_type == "constant" else min_lr
        self._linear = warmup_type == "linear"
        self._skipped = 0 if recount else self._warmup
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        """Return the learning rate in an epoch (from 0) for the full rate `base_lr`."""
        if epoch >= self._warmup:
            factor = self._factor(epoch - self._warmup + self._skipped)
            return base_lr * factor / self._factor(self._skipped)
        if self._linear and epoch > 0:
            return base_lr * epoch / self._warmup
        return self._warmup_lr

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each parameter group in this epoch."""
        return [self.lr_at(self.last_epoch, float(base_lr)) for base_lr in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the rates; the formula comes from the configuration."""
        return {
            "last_epoch": self.last_epoch,
            "base_lrs": [float(lr) for lr in self.base_lrs],
            "_step_count": self._step_count,
            "_last_lr": [float(lr) for lr in self._last_lr],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the saved epoch.

        Raises:
            ValueError: the state is of a nested scheduler of Dassl, which does not save the epoch.
        """
        if "successor" in state_dict:
            raise ValueError("Dassl wrote this schedule; its weights can be loaded, not resumed")
        self.last_epoch = state_dict["last_epoch"]
        self.base_lrs = state_dict["base_lrs"]
        self._step_count = state_dict["_step_count"]
        if self.get_lr() == state_dict["_last_lr"]:  # the optimiser's rate may be set by a method
            self._last_lr = state_dict["_last_lr"]
        else:  # the schedule has changed because of a higher OPTIM.MAX_EPOCH
            self._set_rates()

    def go_to_epoch(self, epoch: int) -> None:
        """Set the rates of an epoch (from 0), like `epoch` calls of `step()`."""
        self.last_epoch, self._step_count = epoch, epoch + 1
        self._set_rates()

    def _set_rates(self) -> None:
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate


def iteration_cosine(optimizer: Optimizer, steps: int, min_lr: float = 0.0) -> WarmupScheduler:
    """Create a cosine from the full rate to `min_lr`, whose `step()` follows every batch.

    Step t of `steps`, from 0, has the rate min_lr + (lr - min_lr) (1 + cos(pi t / steps)) / 2.
    """
    low = min_lr / optimizer.param_groups[0]["lr"]
    return WarmupScheduler(
        optimizer, lambda step: low + (1 - low) * (1 + math.cos(math.pi * step / steps)) / 2
    )


def build_lr_scheduler(optimizer: Optimizer, optim_cfg: Config) -> WarmupScheduler:
    """Create the learning-rate schedule of cfg.OPTIM.

    Raises:
        UserError: the schedule or the warm-up is unknown, or STEPSIZE is not valid.
    """
    check_availability(optim_cfg.LR_SCHEDULER, AVAI_SCHEDS, "OPTIM.LR_SCHEDULER")
    if optim_cfg.WARMUP_EPOCH > 0:
        check_availability(optim_cfg.WARMUP_TYPE, ["constant", "linear"], "OPTIM.WARMUP_TYPE")
    return WarmupScheduler(
        optimizer,
        _factor(optim_cfg),
        warmup_epoch=optim_cfg.WARMUP_EPOCH,
        warmup_type=optim_cfg.WARMUP_TYPE,
        cons_lr=optim_cfg.WARMUP_CONS_LR,
        min_lr=optim_cfg.WARMUP_MIN_LR,
        recount=optim_cfg.WARMUP_RECOUNT,
    )
