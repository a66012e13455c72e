"""Epochs of runs that are trained as one batch, in parts that fit into the caches or the memory."""

import time
from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from dassl.engine import Interrupted, interruption
from safeio.errors import UserError

from .batched_run import BatchedRun
from .batched_step import BatchedPrompts, Inputs
from .features.cache import FeatureCache
from .features.views import KEPT_BYTES, FeatureBank
from .graphed_step import GraphedStep
from .prompt_trainer import PromptTrainer


class BatchedEpochs:
    """Runs epochs of several trainers, as many at once as fit into the caches or the memory.

    Args:
        size: number of runs, for results.json.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.at_once = size
        self._first: PromptTrainer | None = None
        self._caches: dict[tuple[str, ...], FeatureCache] = {}
        self._bank: tuple[Sequence[BatchedRun], FeatureBank] | None = None
        self._step: tuple[Sequence[BatchedRun], GraphedStep] | None = None

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
        self.at_once = min(self.at_once, encoder.times_at_once(groups))

    def run(self, runs: Sequence[BatchedRun]) -> None:
        """Run the rest of one epoch of each run; a diverging run fails when it proceeds."""
        for run in runs:
            run.draw_epoch()
        bank = self._prepare_bank(runs)
        # Neighbours have equally many steps and images, and, for `BatchedPrompts`, one norm.
        left = [run for run in runs if run.left]
        left.sort(key=lambda run: (run.labels.shape, run.settings.p))
        for _, group in groupby(left, lambda run: run.labels.shape):
            left = list(group)
            while left:
                part = left[: self.at_once]
                try:
                    self._train(part, bank)
                except torch.OutOfMemoryError as error:
                    self._shrink(len(part), error)
                else:
                    del left[: len(part)]

    def _shrink(self, size: int, error: torch.OutOfMemoryError) -> None:
        """Train half as many runs at once from now on; the epoch starts again."""
        self._step = None
        torch.cuda.empty_cache()
        if size == 1:
            raise UserError(
                "The device's memory is too small for one run; lower MODEL.CLIP.TEXT_MEMORY or "
                "DATALOADER.TRAIN_X.BATCH_SIZE"
            ) from error
        self.at_once = size // 2

    def _prepare_bank(self, runs: Sequence[BatchedRun]) -> FeatureBank:
        """Return the features of all runs; the runs' places become those among them."""
        if self._bank is None or self._bank[0] != runs:
            self._bank = None  # frees the memory
            device = runs[0].trainer.device
            views = [run.trainer.train_loader_x.dataset.views for run in runs]
            limit = KEPT_BYTES * (1 if device.type == "cpu" else 4)
            self._bank = runs, FeatureBank(views, limit, device)
        bank = self._bank[1]
        for run, offset in zip(runs, bank.offsets, strict=True):
            run.places += offset
        return bank

    def _prepare_step(self, part: Sequence[BatchedRun]) -> GraphedStep:
        if self._step is None or self._step[0] != part:
            self._step = None  # frees the memory
            trainer, settings = part[0].trainer, [run.settings for run in part]
            shape = trainer.model.prompt_learner.ctx.shape
            prompts = BatchedPrompts(trainer.model, trainer.clip_precision, settings, shape)
            self._step = part, GraphedStep(prompts)
        return self._step[1]

    def _train(self, part: Sequence[BatchedRun], bank: FeatureBank) -> None:
        """Run the steps of runs with equally many, and hand their results back."""
        run_step, trainers = self._prepare_step(part), [run.trainer for run in part]
        prompts = run_step.prompts
        prompts.load(trainers)
        device = prompts.device
        left = part[0].left
        places = torch.stack([run.places[-left:] for run in part], dim=1).to(bank.index_device)
        labels = torch.stack([run.labels[-left:] for run in part], dim=1).to(device)
        positions = torch.cat([run.positions[-left:] for run in part], dim=1).to(device)
        rates = torch.tensor([trainer.get_current_lr() for trainer in trainers]).to(device)
        factors = torch.tensor([run.omega_factor for run in part]).to(device)
        numbers: list[Tensor] = []
        start = time.perf_counter()

        def hand_back() -> None:
            nonlocal start
            rows = torch.stack(numbers).tolist()  # (steps, numbers, runs)
            numbers.clear()
            prompts.store(trainers)
            seconds, start = time.perf_counter() - start, time.perf_counter()
            for index, run in enumerate(part):
                run.report([[row[index] for row in step] for step in rows], seconds)

        checkpoints = [trainer.resuming.checkpoint for trainer in trainers]
        for step in range(left):
            if step and (interruption.requested() or all(file.due() for file in checkpoints)):
                hand_back()
                _save(part)
            features = bank.take(places[step])
            inputs = Inputs(features, labels[step], positions[step], rates, factors)
            numbers.append(run_step(inputs))
        hand_back()


def _save(part: Sequence[BatchedRun]) -> None:
    """Save all runs, then raise `Interrupted` if a signal was received."""
    signal = None
    for run in part:
        try:
            run.save()
        except Interrupted as stop:
            signal = stop
    if signal is not None:
        raise signal
