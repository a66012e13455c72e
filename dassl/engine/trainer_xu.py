"""Trainer for labelled and unlabelled images."""

from collections.abc import Iterator
from itertools import chain, islice, repeat
from typing import Any

from torch import Tensor

from safeio.errors import UserError

from ..utils import check_availability
from .trainer import TrainerX


class PairedBatches:
    """`count` pairs of batches from two loaders; a loader restarts when it ends."""

    batch_size = None  # `skip_batches` cannot skip pairs without loading them

    def __init__(self, labelled: Any, unlabelled: Any, count: int) -> None:
        self.loaders = labelled, unlabelled
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        endless = [chain.from_iterable(repeat(loader)) for loader in self.loaders]
        return islice(zip(*endless, strict=True), self.count)


class TrainerXU(TrainerX):
    """Trainer for pairs of batches; a subclass defines `forward_backward(batch_x, batch_u)`.

    The number of pairs per epoch is the number of batches in the loader that TRAIN.COUNT_ITER
    names: train_x, train_u or smaller_one.
    """

    learns = False  # a subclass's `forward_backward` replaces one that only raises

    def _check_loader(self) -> None:
        """Also refuse a dataset without unlabelled images, and an unknown TRAIN.COUNT_ITER."""
        super()._check_loader()
        counted = ("train_x", "train_u", "smaller_one")
        check_availability(self.cfg.TRAIN.COUNT_ITER, counted, "TRAIN.COUNT_ITER")
        if self.train_loader_u is None:
            raise UserError(
                f"{self.cfg.DATASET.NAME} has no unlabelled training images, but "
                f"{self.cfg.TRAINER.NAME} needs them; choose another dataset or trainer"
            )

    def run_epoch(self) -> None:
        """Train on all pairs once."""
        self._check_loader()
        counts = {"train_x": len(self.train_loader_x), "train_u": len(self.train_loader_u)}
        counts["smaller_one"] = min(counts.values())
        pairs = PairedBatches(
            self.train_loader_x, self.train_loader_u, counts[self.cfg.TRAIN.COUNT_ITER]
        )
        self.run_batches(pairs, lambda pair: self.forward_backward(*pair))

    def forward_backward(self, batch_x: Any, batch_u: Any = None) -> dict[str, Any] | None:
        """Train on a labelled and an unlabelled batch; return the metrics to print."""
        raise NotImplementedError

    def parse_batch_train(self, batch_x: Any, batch_u: Any = None) -> tuple[Tensor, ...]:
        """Return labelled images, their labels and unlabelled images on the device."""
        tensors = (batch_x["img"], batch_x["label"], batch_u["img"])
        return tuple(tensor.to(self.device, non_blocking=True) for tensor in tensors)
