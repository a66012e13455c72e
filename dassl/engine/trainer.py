"""Trainer for labelled images: the loop over the batches of an epoch."""

import datetime
import importlib
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from safeio.errors import UserError

from ..data.samplers import skip_batches
from ..utils import AverageMeter, MetricMeter
from .base import TrainerBase
from .simple_trainer import SimpleTrainer

__all__ = ["SimpleTrainer", "TrainerBase", "TrainerX"]

# Dassl exports these names here, too; importing them takes time, so it happens on first access.
_LAZY_IMPORTS = {
    "SimpleNet": "dassl.engine.simple_net",
    "SummaryWriter": "torch.utils.tensorboard",
    "TrainerXU": "dassl.engine.trainer_xu",
}


def __getattr__(name: str) -> Any:
    """Import a name of `_LAZY_IMPORTS`."""
    if name not in _LAZY_IMPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY_IMPORTS[name]), name)


class TrainerX(SimpleTrainer):
    """Trainer for labelled images; a subclass defines `forward_backward(batch)`."""

    resumes_within_epoch = True  # it overrides hooks, but accumulates no state in them
    learns = False  # its epoch has no step yet

    def check_train(self) -> None:
        """Also refuse a dataset without training images."""
        self._check_loader()
        super().check_train()

    def _check_loader(self) -> None:
        if self.train_loader_x is None:
            raise UserError(
                f"{self.cfg.DATASET.NAME} has no training images; test a model that was trained on "
                "another dataset with --eval-only --model-dir DIR"
            )

    def run_epoch(self) -> None:
        """Train on all batches of labelled images once."""
        self._check_loader()
        self.run_batches(self.train_loader_x, self.forward_backward)

    def run_batches(self, loader: Any, step: Callable[[Any], dict[str, Any] | None]) -> None:
        """Call a training step, which returns metrics, for every batch; print progress like Dassl.

        Raises:
            FloatingPointError: the loss is NaN or infinite.
        """
        self.set_model_mode("train")
        losses = MetricMeter()
        batch_time, data_time = AverageMeter(), AverageMeter()
        self.num_batches = self.batches_of_epoch(len(loader))
        done = self.resuming.restore_epoch(losses)
        end = time.time()
        batches = islice(remaining_batches(loader, done), self.num_batches - done)
        for batch_idx, batch in batches:
            self.batch_idx = batch_idx
            self.batch_files = batch.get("impath", ()) if isinstance(batch, dict) else ()
            data_time.update(time.time() - end)
            losses.update(step(batch))
            batch_time.update(time.time() - end)
            self.report_batch(losses, batch_time, data_time)
            self.resuming.checkpoint_if_due(self.epoch, batch_idx + 1, losses)
            end = time.time()
        self.epoch_means = losses.averages()

    def batches_of_epoch(self, length: int) -> int:
        """Return the number of batches of this epoch, of a loader with `length`."""
        left = self.total_batches - self.epoch * length
        return min(length, left) if self.total_batches else length

    def report_batch(
        self, losses: MetricMeter, batch_time: AverageMeter, data_time: AverageMeter
    ) -> None:
        """Check, print and write the metrics after some batches; reading stalls an accelerator."""
        frequency = self.cfg.TRAIN.PRINT_FREQ
        last = self.batch_idx + 1 == self.num_batches
        printed = (self.batch_idx + 1) % frequency == 0 or self.num_batches < frequency
        if printed or last:
            self._check_means(losses)
        if printed:
            self._print_progress(losses, batch_time, data_time)
        if printed or last:
            self._write_progress(losses)

    def _check_means(self, losses: MetricMeter) -> None:
        self.finite_check.check()
        if "loss" in losses.meters:
            # For trainers that do not call model_backward().
            self.detect_anomaly(torch.tensor(losses.meters["loss"].avg))

    def _print_progress(
        self, losses: MetricMeter, batch_time: AverageMeter, data_time: AverageMeter
    ) -> None:
        left = self.num_batches - self.batch_idx - 1
        left += (self.max_epoch - self.epoch - 1) * self.num_batches
        eta = datetime.timedelta(seconds=int(batch_time.avg * left))
        lr = self._lr_or_none()
        parts = [
            f"epoch [{self.epoch + 1}/{self.max_epoch}]",
            f"batch [{self.batch_idx + 1}/{self.num_batches}]",
            f"time {batch_time.val:.3f} ({batch_time.avg:.3f})",
            f"data {data_time.val:.3f} ({data_time.avg:.3f})",
            str(losses),
            f"lr {lr:.4e}" if lr is not None else "",
            f"eta {eta}",
        ]
        print(" ".join(part for part in parts if part))

    def _write_progress(self, losses: MetricMeter) -> None:
        step = self.epoch * self.num_batches + self.batch_idx
        for name, mean in losses.averages().items():
            self.write_scalar(f"train/{name}", mean, step)
        lr = self._lr_or_none()
        if lr is not None:
            self.write_scalar("train/lr", lr, step)

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, ...]:
        """Return images, labels and domains on the device."""
        names = ("img", "label", "domain")
        return tuple(batch[name].to(self.device, non_blocking=True) for name in names)


def remaining_batches(loader: Any, done: int) -> Iterator[tuple[int, Any]]:
    """Enumerate the batches of an epoch after the first `done` ones."""
    skipped = done == 0 or skip_batches(loader, done)
    return enumerate(loader if skipped else islice(loader, done, None), start=done)
