"""Dassl's warm-up schedulers, which wrap a PyTorch scheduler, for code that builds its own.

`build_lr_scheduler` uses `lr_scheduler.WarmupScheduler` instead, which gives the same rates.
"""

from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class _BaseWarmupScheduler(LRScheduler):
    """Scheduler with warm-up epochs before the scheduler `successor`, which is created first."""

    def __init__(
        self,
        optimizer: Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        last_epoch: int = -1,
        verbose: bool = False,
    ) -> None:
        del verbose
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        super().__init__(optimizer, last_epoch)

    def warmup_lr(self, base_lr: float) -> float:
        """Return the warm-up rate in this epoch for the full rate of a parameter group."""
        raise NotImplementedError

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each parameter group in this epoch."""
        if self.last_epoch >= self.warmup_epoch:
            return list(self.successor.get_last_lr())
        return [self.warmup_lr(float(base_lr)) for base_lr in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        """Start the next epoch."""
        if self.last_epoch >= self.warmup_epoch:
            self.successor.step(epoch)
            self._last_lr = self.successor.get_last_lr()
        else:
            super().step(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both schedulers as plain values."""
        return {**super().state_dict(), "successor": self.successor.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        self.successor.load_state_dict(state_dict["successor"])
        own = {name: value for name, value in state_dict.items() if name != "successor"}
        super().load_state_dict(own)


class ConstantWarmupScheduler(_BaseWarmupScheduler):
    """Warm-up with the constant rate `cons_lr`; see the base class."""

    def __init__(
        self,
        optimizer: Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        cons_lr: float,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self.cons_lr = cons_lr
        super().__init__(optimizer, successor, warmup_epoch, *args, **kwargs)

    def warmup_lr(self, base_lr: float) -> float:
        """Return `cons_lr`."""
        return self.cons_lr


class LinearWarmupScheduler(_BaseWarmupScheduler):
    """Linear warm-up that starts at `min_lr`; see the base class."""

    def __init__(
        self,
        optimizer: Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        min_lr: float,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self.min_lr = min_lr
        super().__init__(optimizer, successor, warmup_epoch, *args, **kwargs)

    def warmup_lr(self, base_lr: float) -> float:
        """Return `min_lr` in the first epoch, then a rate proportional to the epoch."""
        return base_lr * self.last_epoch / self.warmup_epoch if self.last_epoch else self.min_lr
