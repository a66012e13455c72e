"""Code that the pretrainings share: a resumable run, its metrics and options."""

from __future__ import annotations

import argparse
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tools.mini.batches import Batches, Corpus, PairBatch
from tools.mini.styles import WORK

PIXEL_MEAN, PIXEL_STD = 0.6, 0.33
PROBED = ("noto", "openmoji-black", "twemoji")  # styles of the metrics
METRICS_EVERY = 50_000  # pairs
CHECKPOINT_EVERY = 120.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hyperparameters of a run; a pair is a scene and its concept or caption."""

    pairs: int
    batch: int
    rate: float
    decay: float = 0.05
    seed: int = 1


R = TypeVar("R", bound=Recipe)


def normalised(images: Tensor) -> Float[Tensor, "b 3 64 64"]:
    """Return uint8 images (B, 64, 64, 3) as the encoders' input."""
    return (images.permute(0, 3, 1, 2).float() / 255 - PIXEL_MEAN) / PIXEL_STD


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically."""
    scratch = path.with_suffix(".tmp")
    torch.save(state, scratch)
    scratch.replace(path)


@torch.no_grad()
def accuracies(
    corpus: Corpus, encode: Callable[[Tensor], Tensor], texts: Float[Tensor, "concepts embed"]
) -> dict[str, float]:
    """Return the accuracy in % on one scene per concept, by style.

    Args:
        corpus: the drawings.
        encode: returns normalised features of uint8 images (B, 64, 64, 3).
        texts: normalised features of all concepts.
    """
    groups = corpus.groups
    result = {}
    for style in PROBED:
        images, labels = corpus.probe(style)
        scores = torch.cat([encode(part) for part in images.split(256)]) @ texts.t()
        result[style] = (scores.argmax(1) == labels).float().mean().item() * 100
        within = scores.masked_fill(groups[labels][:, None] != groups, -1.0)
        result[f"{style} in group"] = (within.argmax(1) == labels).float().mean().item() * 100
    return {key: round(value, 2) for key, value in result.items()}


class Run(ABC, Generic[R]):
    """A pretraining that resumes after interruptions.

    Attributes:
        name: name of its checkpoint and of its log of metrics.
        recipe: its hyperparameters.
        corpus: drawings and names.
        learner: the trained module.
        optimizers: one or more for its parameters.
        pairs: number of pairs trained on.
    """

    name: str

    def __init__(
        self,
        recipe: R,
        folder: Path,
        corpus: Corpus,
        learner: nn.Module,
        optimizers: list[torch.optim.Optimizer],
    ) -> None:
        self.recipe, self.folder, self.corpus = recipe, folder, corpus
        self.learner, self.optimizers = learner, optimizers
        self.pairs = 0
        self.checkpoint = folder / f"{self.name}.pt"
        if self.checkpoint.exists():
            self._resume()

    @abstractmethod
    def rate(self) -> float:
        """Return the learning rate of the next step."""

    @abstractmethod
    def loss(self, batch: PairBatch) -> Float[Tensor, ""]:
        """Return the loss of one batch."""

    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """Return the metrics that are logged every `METRICS_EVERY` pairs."""

    def resumable(self, saved: dict[str, Any], pairs: int) -> bool:
        """Return whether the checkpoint of a run with the saved recipe is one of this run."""
        return saved == asdict(self.recipe)

    def extra_state(self) -> dict[str, Any]:
        """Return further entries of the checkpoint for the export."""
        return {}

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        if not self.resumable(state["recipe"], state["pairs"]):
            raise SystemExit(
                f"{self.checkpoint} belongs to the recipe {state['recipe']}; move it away or "
                "pass the same options."
            )
        self.learner.load_state_dict(state["learner"])
        for optimizer, content in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(content)
        self.pairs = state["pairs"]
        print(f"resuming after {self.pairs:,} pairs", flush=True)

    def _save(self) -> None:
        state = {
            "learner": self.learner.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "pairs": self.pairs,
            "recipe": asdict(self.recipe),
            **self.extra_state(),
        }
        save(self.checkpoint, state)

    def step(self, batch: PairBatch) -> float:
        """Train on one batch and return its loss."""
        with torch.autocast("cpu", torch.bfloat16):
            loss = self.loss(batch)
        self.learner.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.learner.parameters(), 1.0)
        rate = self.rate()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        self.pairs += len(batch.concepts)
        return loss.item()

    def train(self) -> None:
        """Train to the end, with progress lines, metrics and checkpoints."""
        started = saved = time.monotonic()
        first, mean, step = self.pairs, 0.0, 0
        recipe = self.recipe
        self.learner.train()
        for batch in Batches(self.corpus, recipe.batch, recipe.seed, self.pairs, recipe.pairs):
            loss, step = self.step(batch), step + 1
            mean = loss if step == 1 else 0.98 * mean + 0.02 * loss
            now = time.monotonic()
            last = self.pairs >= recipe.pairs
            if step % 50 == 0 or last:
                speed = (self.pairs - first) / (now - started)
                left = (recipe.pairs - self.pairs) / speed / 60
                print(
                    f"{self.pairs:,} pairs, loss {mean:.3f}, {speed:.0f}/s, {left:.0f} min left",
                    flush=True,
                )
            if self.pairs // METRICS_EVERY != (self.pairs - recipe.batch) // METRICS_EVERY or last:
                self._log(mean)
            if now - saved > CHECKPOINT_EVERY or last:
                self._save()
                saved = now

    def _log(self, loss: float) -> None:
        self.learner.eval()
        metrics = {"pairs": self.pairs, "loss": round(loss, 4), **self.metrics()}
        self.learner.train()
        with (self.folder / f"{self.name}_log.jsonl").open("a") as file:
            file.write(json.dumps(metrics) + "\n")
        print(metrics, flush=True)


def read_options(description: str | None, recipe: Recipe) -> argparse.Namespace:
    """Return the options of a pretraining: pairs, batch, seed, folder, threads, compile."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=recipe.pairs)
    parser.add_argument("--batch", type=int, default=recipe.batch)
    parser.add_argument("--seed", type=int, default=recipe.seed)
    parser.add_argument("--folder", type=Path, default=WORK, help="of checkpoint and log")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--compile", action="store_true", help="faster; needs a C++ compiler")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options
