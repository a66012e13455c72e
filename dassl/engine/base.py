"""The loop over the epochs, with the hooks that trainers override."""

import time
from typing import Any

from safeio.files import PathLike, mkdir_if_missing

from . import interruption
from .keeper import ModelKeeper


class TrainerBase(ModelKeeper):
    """A loop over epochs and the models that it trains.

    Attributes:
        learns: whether there is something to test only after training; False for zero-shot methods.
        start_epoch: first epoch of this run, later than 0 after a resume.
        max_epoch: number of epochs in all.
        epoch_began: when the present epoch began, by time.perf_counter().
    """

    learns = True
    start_epoch = 0
    max_epoch = 0
    epoch_began = 0.0

    def __init__(self) -> None:
        super().__init__()
        self._writer: Any = None

    def init_writer(self, log_dir: PathLike, purge_step: int | None = None) -> None:
        """Open the TensorBoard writer.

        Args:
            log_dir: its folder.
            purge_step: hide what an earlier attempt wrote from this step on.
        """
        if self.__dict__.get("_writer") is None:
            # Importing TensorBoard takes a second, which an evaluation need not wait for.
            from torch.utils.tensorboard import SummaryWriter

            print(f"Initialize tensorboard (log_dir={log_dir})")
            mkdir_if_missing(log_dir)
            self._writer = SummaryWriter(str(log_dir), purge_step=purge_step)

    def close_writer(self) -> None:
        """Close the writer."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def write_scalar(
        self, tag: str, scalar_value: float | int, global_step: int | None = None
    ) -> None:
        """Write a number for TensorBoard; does nothing without a writer."""
        if self._writer is not None:
            self._writer.add_scalar(tag, scalar_value, global_step)

    def train(self, start_epoch: int, max_epoch: int) -> None:
        """Run all epochs; `before_train` may move `start_epoch` to resume."""
        self.start_epoch = start_epoch
        self.max_epoch = max_epoch
        self.before_train()
        self.restore_point()
        # After the last epoch of an earlier attempt, the test is that of the last epoch.
        self.epoch = max(0, min(self.start_epoch, self.max_epoch - 1))
        for epoch in range(self.start_epoch, self.max_epoch):
            self.epoch = epoch
            self.enter_epoch()
            self.epoch_began = time.perf_counter()
            self.before_epoch()
            with interruption.deferred():
                self.run_epoch()
                self.check_losses()
                self.leave_epoch(time.perf_counter() - self.epoch_began)
                self.after_epoch()
                self.reach(epoch + 1)
        self.after_train()

    def restore_point(self) -> None:
        """Engine's hook after `before_train`: take up an earlier attempt where it was stopped."""

    def reach(self, epoch: int) -> None:
        """Engine's hook when everything about the epochs before this one is done."""

    def enter_epoch(self) -> None:
        """Engine's hook before an epoch; trainers override `before_epoch` instead."""

    def leave_epoch(self, seconds: float) -> None:
        """Engine's hook after an epoch of so many seconds, before `after_epoch`."""

    def before_train(self) -> None:
        """Hook."""

    def after_train(self) -> None:
        """Hook."""

    def before_epoch(self) -> None:
        """Hook."""

    def after_epoch(self) -> None:
        """Hook."""

    def run_epoch(self) -> None:
        """Run one epoch."""
        raise NotImplementedError

    def test(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate."""
        raise NotImplementedError

    def parse_batch_train(self, batch: Any) -> Any:
        """Take a training batch apart and move it to the device."""
        raise NotImplementedError

    def parse_batch_test(self, batch: Any) -> Any:
        """Take a test batch apart and move it to the device."""
        raise NotImplementedError

    def forward_backward(self, batch: Any) -> dict[str, Any] | None:
        """Learn from one batch; return what to print."""
        raise NotImplementedError

    def model_inference(self, input: Any) -> Any:
        """Return the model's outputs."""
        raise NotImplementedError
