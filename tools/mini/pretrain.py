"""Pretrain the bundled small CLIP on the training styles of `tools/mini/styles.py`.

CLIP's contrastive loss (Radford et al., ICML 2021), with pairs of the same concept removed from
the negatives, plus a classification loss of both encoders against one learned centre per concept,

    L = contrastive + 0.5 CE(20 cos(f, z), y) + 0.5 CE(20 cos(g, z), y),   label smoothing 0.05.

Run from the repository's root after `fetch` and `render`: `python -m tools.mini.pretrain`.  It
writes a checkpoint every two minutes and resumes from it when started again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from clip.config import CLIPConfig
from clip.model import CLIP
from clip.resnet import Bottleneck
from tools.mini.batches import Batches, Corpus, PairBatch
from tools.mini.styles import WORK

CONFIG = CLIPConfig(
    embed_dim=256, image_resolution=64, vision_layers=(1, 1, 1, 1), vision_width=24,
    vision_patch_size=None, vision_heads=12, transformer_width=128, transformer_heads=2,
    transformer_layers=3,
)  # fmt: skip
PIXEL_MEAN, PIXEL_STD = 0.6, 0.33
TEXT_BUCKETS = 4  # captions are sorted by length and encoded in this many chunks
CENTRE_SCALE, CENTRE_WEIGHT, SMOOTHING = 20.0, 0.5, 0.05


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of a run."""

    pairs: int = 1_300_000
    batch: int = 96
    rate: float = 1.5e-3
    warmup: float = 0.04
    decay: float = 0.05
    first_scale: float = 20.0
    seed: int = 1


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
        pixels = (images.permute(0, 3, 1, 2).float() / 255 - PIXEL_MEAN) / PIXEL_STD
        # evaluation bypasses the compiled call, since other shapes would recompile it
        encode = self.clip.visual if self.training else self.clip.visual.forward
        return functional.normalize(encode(pixels).float(), dim=-1)

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


def learning_rate(recipe: Recipe, pairs: int) -> float:
    """Return the learning rate after some pairs: linear warm-up, then cosine to zero."""
    share = pairs / recipe.pairs
    if share < recipe.warmup:
        return recipe.rate * share / recipe.warmup
    done = (share - recipe.warmup) / (1 - recipe.warmup)
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(learner: Learner, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW with weight decay for matrices only."""
    matrices = [p for p in learner.parameters() if p.ndim > 1]
    others = [p for p in learner.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98), fused=True)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically."""
    scratch = path.with_suffix(".tmp")
    torch.save(state, scratch)
    scratch.replace(path)


@torch.no_grad()
def evaluate(learner: Learner, corpus: Corpus) -> dict[str, float]:
    """Return the accuracy in % on one scene per concept, in evaluation mode."""
    learner.eval()
    ids, lengths = corpus.evaluation_captions()
    texts = learner.text_features(ids, lengths)
    groups = corpus.groups
    result = {}
    for style in ("noto", "openmoji-black", "twemoji"):
        images, labels = corpus.probe(style)
        features = torch.cat([learner.image_features(part) for part in images.split(256)])
        scores = features @ texts.t()
        result[style] = (scores.argmax(1) == labels).float().mean().item() * 100
        within = scores.masked_fill(groups[labels][:, None] != groups, -1.0)
        result[f"{style} in group"] = (within.argmax(1) == labels).float().mean().item() * 100
    learner.train()
    return {key: round(value, 2) for key, value in result.items()}


class Run:
    """Pretraining that resumes after interruptions."""

    def __init__(
        self, recipe: Recipe, folder: Path, corpus: Corpus, compiled: bool = False
    ) -> None:
        self.recipe, self.folder, self.corpus = recipe, folder, corpus
        torch.manual_seed(recipe.seed)
        concepts = len(corpus.concepts)
        self.learner = Learner(corpus.vocabulary, concepts, recipe.first_scale)
        self.learner.clip.visual.to(memory_format=torch.channels_last)
        if compiled:
            self.learner.clip.visual.compile()
        self.optimizer = make_optimizer(self.learner, recipe)
        self.pairs = 0
        self.checkpoint = folder / "pretrain.pt"
        if self.checkpoint.exists():
            self._resume()

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        if state["recipe"] != asdict(self.recipe):
            raise SystemExit(
                f"{self.checkpoint} belongs to the recipe {state['recipe']}; move it away or "
                "pass the same options."
            )
        self.learner.load_state_dict(state["learner"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.pairs = state["pairs"]
        print(f"resuming after {self.pairs:,} pairs", flush=True)

    def _save(self) -> None:
        state = {
            "learner": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "pairs": self.pairs,
            "recipe": asdict(self.recipe),
            "vocabulary": self.corpus.vocabulary,
        }
        save(self.checkpoint, state)

    def _step(self, batch: PairBatch) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.pairs)
        with torch.autocast("cpu", torch.bfloat16):
            loss = self.learner.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.learner.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self.learner.clip.logit_scale.clamp_(max=math.log(100))
        self.pairs += len(batch.concepts)
        return loss.item()

    def train(self) -> None:
        """Train to the end, with progress lines, metrics and checkpoints."""
        started = saved = time.monotonic()
        first, mean, step = self.pairs, 0.0, 0
        self.learner.train()
        for batch in Batches(
            self.corpus, self.recipe.batch, self.recipe.seed, self.pairs, self.recipe.pairs
        ):
            loss, step = self._step(batch), step + 1
            mean = loss if step == 1 else 0.98 * mean + 0.02 * loss
            now = time.monotonic()
            last = self.pairs >= self.recipe.pairs
            if step % 50 == 0 or last:
                speed = (self.pairs - first) / (now - started)
                left = (self.recipe.pairs - self.pairs) / speed / 60
                print(
                    f"{self.pairs:,} pairs, loss {mean:.3f}, {speed:.0f}/s, {left:.0f} min left",
                    flush=True,
                )
            if self.pairs // 50_000 != (self.pairs - self.recipe.batch) // 50_000 or last:
                self._log(mean)
            if now - saved > 120 or last:
                self._save()
                saved = now

    def _log(self, loss: float) -> None:
        metrics: dict[str, Any] = {"pairs": self.pairs, "loss": round(loss, 4)}
        metrics["scale"] = round(self.learner.clip.logit_scale.exp().item(), 2)
        metrics.update(evaluate(self.learner, self.corpus))
        with (self.folder / "pretrain_log.jsonl").open("a") as file:
            file.write(json.dumps(metrics) + "\n")
        print(metrics, flush=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=Recipe.pairs)
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--folder", type=Path, default=WORK)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--compile", action="store_true", help="faster; needs a C++ compiler")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = Recipe(pairs=options.pairs, batch=options.batch, seed=options.seed)
    Run(recipe, options.folder, Corpus.load(WORK), options.compile).train()


if __name__ == "__main__":
    main()
