"""One run of a batch: it pauses while the steps of its epoch are computed with those of others."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import torch
from torch import Tensor

from dassl.engine import Interrupted
from dassl.engine.experiment import experiment
from dassl.utils import AverageMeter, MetricMeter, generator_states, set_generator_states
from safeio.untrusted import printable

from ..nemesis import omega_schedule
from .batched_step import NUMBERS, Settings


class BatchedRun:
    """An ordinary run with its own generators and standard output; it draws and records as alone.

    Args:
        cfg: its configuration.
        overwrite: replace a finished run in its folder.
        output: what it prints before its log is open.
        share: called with the trainer when it is built.

    Attributes:
        live: whether it waits for the steps of an epoch.
        end: the exception that ended it.
        trainer: its trainer.
        settings: its part of the batch's settings.
        places: rows of an epoch's images among those of the run's views, (steps, batch).
        labels: of these images, (steps, batch).
        positions: PAN's drawn positions, (steps, N).
        left: number of steps until the end of the epoch; 0 if only the test behind them is left.
    """

    trainer: Any
    settings: Settings
    places: Tensor
    labels: Tensor
    positions: Tensor

    def __init__(
        self, cfg: Any, overwrite: bool, output: TextIO, share: Callable[[Any], None]
    ) -> None:
        self.cfg, self.live = cfg, True
        self.end: Exception | None = None
        self._share, self._output, self._console = share, output, sys.stdout
        self._generators = generator_states()
        self._failure: Exception | None = None
        self._steps = experiment(cfg, overwrite=overwrite, on_trainer=self._take)

    def _take(self, trainer: Any) -> None:
        self.trainer, trainer.shared_epochs = trainer, True
        self.settings = Settings.of(trainer)
        self._share(trainer)

    @contextmanager
    def _own_state(self) -> Iterator[None]:
        """Use the run's own generators and standard output."""
        stdout, sys.stdout = sys.stdout, self._output
        set_generator_states(self._generators)
        try:
            yield
        finally:
            self._generators, self._output = generator_states(), sys.stdout
            sys.stdout = stdout

    def proceed(self) -> None:
        """Record the epoch and go on to the next one, or to the end."""
        try:
            with self._own_state():
                if self._failure is None:
                    next(self._steps)
                else:
                    self._steps.throw(self._failure)
        except StopIteration:
            self._finish(f"Results are in {self.cfg.OUTPUT_DIR}")
        except Exception as error:
            self.end = error
            self._finish(f"{self.cfg.OUTPUT_DIR}: {error}")

    def _finish(self, message: str) -> None:
        self.live = False
        print(printable(message), file=self._console)

    def stop(self, signal: Interrupted) -> None:
        """Save the run and end it, if it is live."""
        if not self.live:
            return
        self.live = False
        try:
            with self._own_state():
                self._steps.throw(signal)
        except (Interrupted, StopIteration):
            pass

    def draw_epoch(self) -> None:
        """Draw the batches and positions for the rest of the epoch."""
        trainer, loader = self.trainer, self.trainer.train_loader_x
        self._losses, self._times = MetricMeter(), (AverageMeter(), AverageMeter())
        with self._own_state():
            trainer.set_model_mode("train")
            trainer.num_batches = len(loader)
            done = trainer.resuming.restore_epoch(self._losses)
            trainer.epoch_means = self._losses.averages()  # if no batch is left
            self._batches = list(loader.batch_sampler)[done:]
            self.left = len(self._batches)
            self._before_drawing = torch.get_rng_state()
            self.positions = self._draw(self.left)
        items = loader.dataset.source.data_source
        self.places = torch.tensor([loader.dataset.places(batch) for batch in self._batches])
        self.labels = torch.tensor([[items[i].label for i in batch] for batch in self._batches])

    def _draw(self, steps: int) -> Tensor:
        if not self.settings.drawn or not steps:
            return torch.zeros(steps, 0, dtype=torch.long)
        return torch.stack([self.trainer.draw_positions() for _ in range(steps)])

    @property
    def omega_factor(self) -> float:
        """omega_E of this epoch."""
        penalty, trainer = self.settings.penalty, self.trainer
        if penalty is None:
            return 0.0
        return omega_schedule(trainer.epoch, trainer.max_epoch, penalty.schedule)

    def report(self, rows: Sequence[Sequence[float]], seconds: float) -> None:
        """Log the numbers of steps; one that is not finite makes the run fail."""
        if self._failure is not None:
            return
        trainer, model = self.trainer, self.trainer.model
        term = [] if model.term_weight is None else [model.term_name]
        try:
            with self._own_state():
                for row in rows:
                    numbers = dict(zip((*NUMBERS, *term), row, strict=True))
                    trainer.batch_idx = trainer.num_batches - self.left
                    self._check(numbers)
                    self._losses.update(self._summary(numbers, term))
                    for meter, value in zip(self._times, (seconds / len(rows), 0.0), strict=True):
                        meter.update(value)
                    self.left -= 1
                    if not self.left:
                        trainer.update_lr()
                        trainer.epoch_means = self._losses.averages()
                    trainer.report_batch(self._losses, *self._times)
        except FloatingPointError as error:
            self._failure = error

    def _check(self, numbers: dict[str, float]) -> None:
        trainer = self.trainer
        for name, key in (("loss", "loss"), ("norm of the gradients", "gradients")):
            if not math.isfinite(numbers[key]):
                items = trainer.train_loader_x.dataset.source.data_source
                trainer.batch_files = [items[i].impath for i in self._batches[-self.left]]
                trainer.finite_check.add(name, torch.tensor(numbers[key]), trainer._step())

    def _summary(self, numbers: dict[str, float], term: Sequence[str]) -> dict[str, float]:
        """Return what a run alone logs for a step."""
        penalty = self.settings.penalty
        if penalty is None:
            keys = ["loss", *(["ce", *term] if term else []), "norm", "acc"]
            return {key: numbers[key] for key in keys}
        norm_losses = [*["pun"] * (penalty.beta > 0), *["pan"] * (penalty.beta < 1)]
        numbers["omega_E"] = self.omega_factor
        keys = ["loss", "ce", *term, *norm_losses, "omega_E", "norm", "acc"]
        return {key: numbers[key] for key in keys}

    def save(self) -> None:
        """Save the run between two batches, if it is due.

        Raises:
            Interrupted: a signal was received.
        """
        if self._failure is not None:
            return
        done, resuming = self.trainer.num_batches - self.left, self.trainer.resuming
        with self._own_state():
            drawn = torch.get_rng_state()
            torch.set_rng_state(self._before_drawing)
            self._draw(len(self._batches) - self.left)
            try:
                resuming.checkpoint_if_due(self.trainer.epoch, done, self._losses)
            finally:
                torch.set_rng_state(drawn)
