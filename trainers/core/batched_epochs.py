"""Epochs of runs that are trained as one batch: what each run draws, the steps, what it records."""

import math
import time
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clip.text_encoding import SoftPromptEncoder
from dassl.engine import Interrupted, interruption
from dassl.utils import AverageMeter, MetricMeter
from safeio.errors import UserError

from ..nemesis import omega_schedule
from .batched_step import NUMBERS, BatchedPrompts, Inputs, Settings
from .features.cache import FeatureCache
from .features.views import KEPT_BYTES, FeatureBank
from .graphed_step import GraphedStep
from .prompt_trainer import PromptTrainer

if TYPE_CHECKING:
    from .batched import PausedRun


class EpochPlan:
    """What a run trains on in the rest of its epoch, drawn by its own generators.

    Args:
        run: paused before the epoch's steps.

    Attributes:
        batch: images per batch.
        places: rows of the batches' features among those of all views, (steps, batch).
        labels: of the batches, (steps, batch).
        positions: PAN's drawn positions, (steps, N).
    """

    def __init__(self, run: "PausedRun") -> None:
        self.run, self.trainer = run, run.trainer
        trainer, loader = self.trainer, self.trainer.train_loader_x
        self.losses, self.failed = MetricMeter(), False
        self.times = AverageMeter(), AverageMeter()
        self.settings = settings_of(trainer)
        with run.own_state():
            trainer.set_model_mode("train")
            trainer.num_batches = len(loader)
            self.done = trainer.resuming.restore_epoch(self.losses)
            self.batches = list(loader.batch_sampler)[self.done :]
            self.batch = len(self.batches[0])
            self._before_drawing = torch.get_rng_state()
            self.positions = self._draw(len(self.batches))
        items = loader.dataset.source.data_source
        self.places = torch.tensor([loader.dataset.places(batch) for batch in self.batches])
        self.labels = torch.tensor([[items[i].label for i in batch] for batch in self.batches])

    @property
    def left(self) -> int:
        """The number of steps until the end of the epoch."""
        return int(self.trainer.num_batches - self.done)

    @property
    def due(self) -> bool:
        """Whether the run must be saved."""
        return bool(self.trainer.resuming.checkpoint.due())

    @property
    def term(self) -> list[str]:
        """The name of a further number of every step, if the CLIP has one."""
        model = self.trainer.model
        return [] if model.term_weight is None else [model.term_name]

    def _draw(self, steps: int) -> Tensor:
        if not self.settings.drawn:
            return torch.zeros(steps, 0, dtype=torch.long)
        return torch.stack([self.trainer.draw_positions() for _ in range(steps)])

    @property
    def parameter(self) -> Tensor:
        """The run's prompts."""
        ctx: Tensor = self.trainer.model.prompt_learner.ctx
        return ctx

    @property
    def omega_factor(self) -> float:
        """omega_E of this epoch."""
        penalty, trainer = self.settings.penalty, self.trainer
        if penalty is None:
            return 0.0
        return omega_schedule(trainer.epoch, trainer.max_epoch, penalty.schedule)

    def report(self, rows: Sequence[Sequence[float]], seconds: float) -> None:
        """Log the numbers of steps; a number that is not finite makes the run fail."""
        trainer, (batch_time, data_time) = self.trainer, self.times
        try:
            with self.run.own_state():
                for row in rows:
                    numbers = dict(zip((*NUMBERS, *self.term), row, strict=True))
                    trainer.batch_idx = self.done
                    self._check(numbers)
                    self.losses.update(self._summary(numbers))
                    batch_time.update(seconds / len(rows))
                    data_time.update(0.0)
                    if self.left == 1:
                        self._end_epoch()
                    trainer.report_batch(self.losses, batch_time, data_time)
                    self.done += 1
        except FloatingPointError as error:
            self.failed = True
            self.run.fail(error)

    def _check(self, numbers: dict[str, float]) -> None:
        trainer = self.trainer
        for name, key in (("loss", "loss"), ("norm of the gradients", "gradients")):
            if not math.isfinite(numbers[key]):
                items = trainer.train_loader_x.dataset.source.data_source
                batch = self.batches[self.done - trainer.num_batches]
                trainer.batch_files = [items[index].impath for index in batch]
                trainer.finite_check.add(name, torch.tensor(numbers[key]), trainer._step())

    def _summary(self, numbers: dict[str, float]) -> dict[str, float]:
        """Return what a run alone logs for a step."""
        penalty = self.settings.penalty
        if penalty is None and not self.term:
            return {key: numbers[key] for key in ("loss", "norm", "acc")}
        summary = {key: numbers[key] for key in ("loss", "ce", *self.term)}
        if penalty is not None:
            norm_losses = [*["pun"] * (penalty.beta > 0), *["pan"] * (penalty.beta < 1)]
            summary |= {key: numbers[key] for key in norm_losses}
            summary["omega_E"] = self.omega_factor
        return {**summary, "norm": numbers["norm"], "acc": numbers["acc"]}

    def save(self) -> None:
        """Save the run between two batches, if it is due.

        Raises:
            Interrupted: a signal was received.
        """
        if self.failed:
            return
        with self.run.own_state():
            drawn = torch.get_rng_state()
            torch.set_rng_state(self._before_drawing)
            self._draw(len(self.batches) - self.left)
            try:
                self.trainer.resuming.checkpoint_if_due(self.trainer.epoch, self.done, self.losses)
            finally:
                torch.set_rng_state(drawn)

    def _end_epoch(self) -> None:
        self.trainer.update_lr()
        self.trainer.epoch_means = self.losses.averages()


def settings_of(trainer: Any) -> Settings:
    """Return what a trainer's step takes from its configuration."""
    optim = trainer.cfg.OPTIM
    return Settings(trainer.norm_penalty, optim.MOMENTUM, optim.WEIGHT_DECAY)


class BatchedEpochs:
    """Runs epochs of several trainers, as many at once as fit into the memory.

    Args:
        size: number of runs, for results.json.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.at_once = size
        self._first: PromptTrainer | None = None
        self._encoders: list[SoftPromptEncoder] = []
        self._caches: dict[tuple[str, ...], FeatureCache] = {}
        self._prepared: tuple[Any, GraphedStep, FeatureBank] | None = None

    def add(self, trainer: PromptTrainer) -> None:
        """Make a new trainer share the first one's CLIP, text encoder and features."""
        trainer.batched = trainer.resuming.checkpoint.batched = self.size
        self._first = first = self._first or trainer
        trainer.loaded_clip = first.loaded_clip
        trainer.model.clip_model = first.loaded_clip.model
        trainer.model.text_encoder = encoder = first.model.text_encoder
        test, batch = trainer.cfg.TEST, trainer.cfg.DATALOADER.TEST.BATCH_SIZE
        folders = (trainer.cfg.DATASET.ROOT, test.FEATURE_CACHE)
        settings = (*folders, str(test.NO_FEATURE_CACHE), str(batch))
        if settings in self._caches:
            trainer.cached_features.cache = self._caches[settings]
        self._caches[settings] = trainer.cached_features.cache
        groups = trainer.model.encoder_groups(trainer.model.prompt_learner())
        fitting = encoder.memory_limit // encoder.saved_bytes(groups)
        self.at_once = max(1, min(self.at_once, int(fitting)))

    def run(self, runs: Sequence["PausedRun"]) -> None:
        """Run the rest of one epoch of each run; a diverging run fails when it proceeds."""
        plans = [EpochPlan(run) for run in runs]
        # Neighbours have equally many steps and images, and, for `BatchedPrompts`, one norm.
        plans.sort(key=lambda plan: (plan.left, plan.batch, plan.settings.p))
        for _, group in groupby(plans, lambda plan: (plan.left, plan.batch)):
            left = list(group)
            while left:
                part = left[: self.at_once]
                try:
                    self._train(part)
                except torch.OutOfMemoryError as error:
                    self._shrink(len(part), error)
                else:
                    del left[: len(part)]

    def _shrink(self, size: int, error: torch.OutOfMemoryError) -> None:
        """Train half as many runs at once from now on; the epoch starts again."""
        self._prepared = None
        torch.cuda.empty_cache()
        if size == 1:
            raise UserError(
                "The device's memory is too small for one run; lower MODEL.CLIP.TEXT_MEMORY or "
                "DATALOADER.TRAIN_X.BATCH_SIZE"
            ) from error
        self.at_once = size // 2

    def _prepare(self, part: Sequence[EpochPlan]) -> tuple[GraphedStep, FeatureBank]:
        key = [plan.run for plan in part]
        if self._prepared is None or self._prepared[0] != key:
            self._prepared = None  # frees the memory
            trainer, views = part[0].trainer, [p.trainer.train_loader_x.dataset.views for p in part]
            settings = [plan.settings for plan in part]
            shape = part[0].parameter.shape
            prompts = BatchedPrompts(trainer.model, trainer.clip_precision, settings, shape)
            limit = KEPT_BYTES * (1 if trainer.device.type == "cpu" else 4)
            bank = FeatureBank(views, limit, trainer.device)
            self._prepared = key, GraphedStep(prompts), bank
        return self._prepared[1:]

    def _train(self, part: Sequence[EpochPlan]) -> None:
        """Run the steps of runs with equally many, and hand their results back."""
        run_step, bank = self._prepare(part)
        prompts = run_step.prompts
        prompts.load([plan.trainer for plan in part])
        device = prompts.device
        left = part[0].left
        offsets = zip(part, bank.offsets, strict=True)
        places = torch.stack([plan.places[-left:] + offset for plan, offset in offsets], dim=1)
        places = places.to(bank.index_device)
        labels = torch.stack([plan.labels[-left:] for plan in part], dim=1).to(device)
        positions = torch.cat([plan.positions[-left:] for plan in part], dim=1).to(device)
        rates = torch.tensor([plan.trainer.get_current_lr() for plan in part]).to(device)
        factors = torch.tensor([plan.omega_factor for plan in part]).to(device)
        numbers: list[Tensor] = []
        start = time.perf_counter()

        def hand_back() -> None:
            nonlocal start
            rows = torch.stack(numbers).tolist()  # (steps, numbers, runs)
            numbers.clear()
            prompts.store([plan.trainer for plan in part])
            seconds, start = time.perf_counter() - start, time.perf_counter()
            for index, plan in enumerate(part):
                plan.report([[row[index] for row in step] for step in rows], seconds)

        for step in range(left):
            if step and (interruption.requested() or all(plan.due for plan in part)):
                hand_back()
                _save(part)
            features = bank.take(places[step])
            inputs = Inputs(features, labels[step], positions[step], rates, factors)
            numbers.append(run_step(inputs))
        hand_back()


def _save(part: Sequence[EpochPlan]) -> None:
    """Save all runs, then raise `Interrupted` if a signal was received."""
    signal = None
    for plan in part:
        try:
            plan.save()
        except Interrupted as stop:
            signal = stop
    if signal is not None:
        raise signal
