"""Dassl's warm-up schedulers, which wrap a scheduler of PyTorch, for code that builds its own.

`build_lr_scheduler` uses the closed formulas of `lr_scheduler.py`, which give the same rates.
"""

from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class _BaseWarmupScheduler(LRScheduler):
    """Warm-up rates for some epochs, then those of another scheduler.

    Args:
        optimizer: both schedulers set its rates.
        successor: the scheduler that follows; made before this one.
        warmup_epoch: number of epochs of warm-up.
        last_epoch: as in PyTorch's schedulers.
        verbose: accepted for old code, and without effect, as in PyTorch.
    """

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
        """The rate in this epoch of the warm-up, for a group's full rate."""
        raise NotImplementedError

    def get_lr(self) -> list[float | Tensor]:
        """Return the rates of all groups in this epoch."""
        if self.last_epoch >= self.warmup_epoch:
            return list(self.successor.get_last_lr())
        return [self.warmup_lr(float(base_lr)) for base_lr in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        """Begin the next epoch."""
        if self.last_epoch >= self.warmup_epoch:
            self.successor.step(epoch)
            self._last_lr = self.successor.get_last_lr()
        else:
            super().step(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both schedulers as plain values."""
        return {**super().state_dict(), "successor": self.successor.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self.successor.load_state_dict(state_dict["successor"])
        own = {name: value for name, value in state_dict.items() if name != "successor"}
        super().load_state_dict(own)


class ConstantWarmupScheduler(_BaseWarmupScheduler):
    """A constant rate, `cons_lr`, during the warm-up; the rest is as in the base class."""

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
        """The constant."""
        return self.cons_lr


class LinearWarmupScheduler(_BaseWarmupScheduler):
    """`min_lr` in the first epoch, then a linear rise; the rest is as in the base class."""

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
        """`min_lr` in the first epoch, then the share of the warm-up that is done."""
        return base_lr * self.last_epoch / self.warmup_epoch if self.last_epoch else self.min_lr
