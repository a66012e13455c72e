"""Pretrain the bundled small CLIP on the training styles of `tools/mini/styles.py`.

CLIP's contrastive loss (Radford et al., ICML 2021), with pairs of the same concept removed from
the negatives, plus a classification loss of both encoders against one learned centre per concept,

    L = contrastive + 0.5 CE(20 cos(f, z), y) + 0.5 CE(20 cos(g, z), y),   label smoothing 0.05.

Run from the repository's root after `fetch` and `render`: `python -m tools.mini.pretrain`.  It
writes a checkpoint every two minutes and resumes from it when started again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from clip.config import CLIPConfig
from clip.model import CLIP
from clip.resnet import Bottleneck
from tools.mini.batches import Corpus, PairBatch
from tools.mini.styles import WORK
from tools.mini.training import Recipe, Run, accuracies, normalised, read_options

CONFIG = CLIPConfig(
    embed_dim=256, image_resolution=64, vision_layers=(1, 1, 1, 1), vision_width=24,
    vision_patch_size=None, vision_heads=12, transformer_width=128, transformer_heads=2,
    transformer_layers=3,
)  # fmt: skip
TEXT_BUCKETS = 4  # captions are sorted by length and encoded in this many chunks
CENTRE_SCALE, CENTRE_WEIGHT, SMOOTHING = 20.0, 0.5, 0.05


@dataclass(frozen=True, kw_only=True)
class PairRecipe(Recipe):
    """Recipe with a cosine schedule and a learned temperature."""

    pairs: int = 1_300_000
    batch: int = 96
    rate: float = 1.5e-3
    warmup: float = 0.04
    first_scale: float = 20.0


class Learner(nn.Module):
    """CLIP with a compact token embedding, and the concepts' centres."""

    def __init__(self, vocabulary: list[int], concepts: int, first_scale: float) -> None:
        super().__init__()
        self.clip = CLIP(CONFIG)
        # most of CLIP's 49,408 rows would never be used, but slow the optimizer down
        self.clip.token_embedding = nn.Embedding(len(vocabulary), CONFIG.transformer_width)
        nn.init.normal_(self.clip.token_embedding.weight, std=0.02)
        nn.init.constant_(self.clip.logit_scale, math.log(first_scale))
        for stage in self.clip.visual.modules():
            # zero-initialised branches help deep encoders; with one block per stage they only delay
            if isinstance(stage, Bottleneck):
                nn.init.ones_(stage.bn3.weight)
        self.centres = nn.Parameter(torch.randn(concepts, CONFIG.embed_dim))

    def image_features(self, images: Tensor) -> Float[Tensor, "b embed"]:
        """Return normalised features of uint8 images (B, 64, 64, 3)."""
        # evaluation bypasses the compiled call, since other shapes would recompile it
        encode = self.clip.visual if self.training else self.clip.visual.forward
        return functional.normalize(encode(normalised(images)).float(), dim=-1)

    def text_features(
        self, ids: Int[Tensor, "b length"], lengths: Int[Tensor, " b"]
    ) -> Float[Tensor, "b embed"]:
        """Return normalised features of compact token ids, in chunks cut to their longest text.

        The text encoder is causal and read at EOS, so cutting does not change the features.
        """
        order = lengths.argsort()
        pieces = [self._piece(ids[k], lengths[k]) for k in order.chunk(TEXT_BUCKETS)]
        return functional.normalize(torch.cat(pieces)[order.argsort()].float(), dim=-1)

    def _piece(self, ids: Tensor, lengths: Tensor) -> Tensor:
        model, longest = self.clip, int(lengths.max())
        x = model.token_embedding(ids[:, :longest]) + model.positional_embedding[:longest]
        x = model.transformer(x.transpose(0, 1))
        return model.ln_final(x[lengths - 1, torch.arange(len(ids))]) @ model.text_projection

    def loss(self, batch: PairBatch) -> Float[Tensor, ""]:
        """Return the loss of one batch."""
        f, g = self.image_features(batch.images), self.text_features(batch.ids, batch.lengths)
        labels = batch.concepts
        same = labels[:, None] == labels
        same.fill_diagonal_(False)
        logits = self.clip.logit_scale.exp() * f @ g.t()
        logits = logits.masked_fill(same, float("-inf"))
        target = torch.arange(len(f))
        total = functional.cross_entropy(logits, target) / 2
        total = total + functional.cross_entropy(logits.t(), target) / 2
        centres = functional.normalize(self.centres, dim=-1).t()
        named = batch.named
        for features, classes in ((f, labels), (g[named], labels[named])):
            total = total + CENTRE_WEIGHT * functional.cross_entropy(
                CENTRE_SCALE * features @ centres, classes, label_smoothing=SMOOTHING
            )
        return total


def learning_rate(recipe: PairRecipe, pairs: int) -> float:
    """Return the learning rate after some pairs: linear warm-up, then cosine to zero."""
    share = pairs / recipe.pairs
    if share < recipe.warmup:
        return recipe.rate * share / recipe.warmup
    done = (share - recipe.warmup) / (1 - recipe.warmup)
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(learner: Learner, recipe: PairRecipe) -> torch.optim.AdamW:
    """Return AdamW with weight decay for matrices only."""
    matrices = [p for p in learner.parameters() if p.ndim > 1]
    others = [p for p in learner.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98), fused=True)


class PairRun(Run[PairRecipe]):
    """Pretraining of both encoders."""

    name = "pretrain"
    learner: Learner

    def __init__(
        self, recipe: PairRecipe, folder: Path, corpus: Corpus, compiled: bool = False
    ) -> None:
        torch.manual_seed(recipe.seed)
        learner = Learner(corpus.vocabulary, len(corpus.concepts), recipe.first_scale)
        learner.clip.visual.to(memory_format=torch.channels_last)
        if compiled:
            learner.clip.visual.compile()
        super().__init__(recipe, folder, corpus, learner, [make_optimizer(learner, recipe)])

    def rate(self) -> float:
        """Return the learning rate of the next step."""
        return learning_rate(self.recipe, self.pairs)

    def loss(self, batch: PairBatch) -> Float[Tensor, ""]:
        """Return the loss of one batch."""
        return self.learner.loss(batch)

    def step(self, batch: PairBatch) -> float:
        """Train on one batch and clamp the temperature to CLIP's range."""
        loss = super().step(batch)
        with torch.no_grad():
            self.learner.clip.logit_scale.clamp_(max=math.log(100))
        return loss

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """Return the temperature and the accuracies."""
        learner = self.learner
        texts = learner.text_features(*self.corpus.evaluation_captions())
        scale = round(learner.clip.logit_scale.exp().item(), 2)
        return {"scale": scale, **accuracies(self.corpus, learner.image_features, texts)}

    def extra_state(self) -> dict[str, Any]:
        """Return the token ids of the embedding's rows."""
        return {"vocabulary": self.corpus.vocabulary}


def main() -> None:
    """Run the command line."""
    options = read_options(__doc__, PairRecipe())
    recipe = PairRecipe(pairs=options.pairs, batch=options.batch, seed=options.seed)
    PairRun(recipe, options.folder, Corpus.load(WORK), options.compile).train()


if __name__ == "__main__":
    main()
