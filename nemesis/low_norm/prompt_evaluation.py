"""Test accuracy of many prompts: image features are computed once, text features per prompt."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

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

    It uses the image features and batches of the trainer's own test, so that the learned prompts
    get the same accuracy. If a method's inference is not a function of image features, prompts are
    tested one by one with its own inference.

    Args:
        trainer: with data and loaded prompts.

    Attributes:
        split: the tested split.
        total: number of test images.
        at_once: number of groups for one call of `count`; more exceed the memory limit.
    """

    def __init__(self, trainer: PromptTrainer) -> None:
        self.trainer = trainer
        self.split, self.loader = trainer.evaluation_set()
        standard = trainer.standard_classify and trainer.model.standard_classify
        from_features = standard and trainer.feature_kind() is not None
        self.rows = trainer.cached_features.rows(self.loader) if from_features else None
        self.labels = torch.tensor([item.label for item in self.loader.dataset.data_source])
        self.total = len(self.labels)
        self.at_once = 1 if self.rows is None else self._groups_at_once()

    @property
    def ctx(self) -> Float[Tensor, "*sets length width"]:
        """The learned prompts."""
        return self.trainer.model.prompt_learner.ctx.detach()

    @torch.no_grad()
    def count(self, ctx: Float[Tensor, "groups *sets length width"]) -> Int[Tensor, " groups"]:
        """Count the correctly classified images under each group's prompts."""
        with autocast(self.trainer.clip_precision, self.trainer.device):
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
                counts = [count_correct(*scored) for scored in trainer.predictions(self.loader)]
                return torch.stack(counts).sum()
        finally:
            parameter.copy_(learned)

    def _batch(self, start: int) -> tuple[Tensor, Tensor]:
        assert self.rows is not None
        stop, device = start + self.loader.batch_size, self.trainer.device
        return self.rows.read(start, stop).to(device), self.labels[start:stop].to(device)

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
