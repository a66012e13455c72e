"""Test accuracy of many prompts: image features are computed once, text features per prompt."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trainers.core.features.cache import STORED_AS
from trainers.core.features.store import StoredRows
from trainers.core.frozen_encoder import autocast
from trainers.core.prompt_trainer import PromptTrainer
from trainers.nemesis import count_correct

# Approximate bytes for the similarities of the groups in one call.
MEMORY = 256 << 20
# Bounded so that the progress bar moves and an interrupted study has saved results.
MOST_AT_ONCE = 32
# Sinkhorn holds about this many arrays of the similarities' size.
COPIES = 8


class PromptEvaluator:
    """Counts the test images that each of many prompts classifies correctly.

    It uses the image features and batches of `CachedFeatures`, so that the learned prompts get the
    same accuracy as in `trainer.test()`. If a method's inference is not a function of these
    features, prompts are tested one by one with its own inference.

    Args:
        trainer: with data and loaded prompts.
    """

    def __init__(self, trainer: PromptTrainer) -> None:
        self.trainer = trainer
        self.split, self.loader = trainer.evaluation_set()
        self.rows = None if not _infers_from_features(trainer) else self._features()
        self.labels = torch.tensor([item.label for item in self.loader.dataset.data_source])
        self.at_once = 1 if self.rows is None else self._groups_at_once()

    @property
    def total(self) -> int:
        """Number of test images."""
        return len(self.labels)

    @torch.no_grad()
    def count(self, ctx: Float[Tensor, "groups *sets length width"]) -> Int[Tensor, " groups"]:
        """Count the correctly classified images under each group's prompts.

        Args:
            ctx: more than `at_once` groups exceed the memory limit.
        """
        trainer = self.trainer
        with autocast(trainer.clip_precision, trainer.device):
            if self.rows is None:
                return torch.stack([self._count_one(prompt) for prompt in ctx])
            return self._count_together(ctx)

    def _count_together(self, ctx: Tensor) -> Int[Tensor, " groups"]:
        model, device = self.trainer.model, self.trainer.device
        text = None if model.conditional else model.text_features(ctx)
        correct = torch.zeros(len(ctx), dtype=torch.long, device=device)
        for start in range(0, self.total, self.loader.batch_size):
            features, labels = self._batch(start)
            logits = model.logits(features, ctx) if text is None else model.match(features, text)
            correct += count_correct(logits, labels)
        return correct

    def _count_one(self, prompt: Tensor) -> Int[Tensor, ""]:
        """Test one prompt by writing it into the prompt learner for the duration."""
        trainer, parameter = self.trainer, self.trainer.model.prompt_learner.ctx
        learned = parameter.detach().clone()
        try:
            parameter.copy_(prompt)
            with trainer.model.cached_text_features():
                scored = trainer.predictions(self.loader)
                return torch.stack(
                    [count_correct(scores, labels) for scores, labels in scored]
                ).sum()
        finally:
            parameter.copy_(learned)

    def _batch(self, start: int) -> tuple[Tensor, Tensor]:
        assert self.rows is not None
        stop, device = start + self.loader.batch_size, self.trainer.device
        return self.rows.read(start, stop).to(device), self.labels[start:stop].to(device)

    def _features(self) -> StoredRows:
        features = self.trainer.cached_features
        rows = features.of(self.loader)
        if rows is not None:
            return rows
        kind = self.trainer.feature_kind()
        assert kind is not None
        return StoredRows.in_memory(features.compute(self.loader), STORED_AS[kind])

    @torch.no_grad()
    def _groups_at_once(self) -> int:
        model = self.trainer.model
        features, _ = self._batch(0)
        with autocast(self.trainer.clip_precision, self.trainer.device):
            text = model.text_features(model.prompt_learner())
        batch, embed = len(features), features.shape[-1]
        tokens = features[0].numel() // embed
        similarities = COPIES * batch * tokens * (text.numel() // embed)
        texts = text.numel() * (batch if model.conditional else 1)
        floats = similarities + texts + model.prompt_learner.ctx.numel()
        return max(1, min(MOST_AT_ONCE, MEMORY // (4 * floats)))


def _infers_from_features(trainer: PromptTrainer) -> bool:
    """Return whether test logits are model.logits(image_features(images), ctx)."""
    standard = trainer.standard_classify and trainer.model.standard_classify
    return standard and trainer.feature_kind() is not None
