"""Pretrain the image encoder of `mini_vit`, a vision transformer, to the text encoder of `mini`.

The text encoder is frozen: its features of all captions are computed once.  On a scene of concept
y, with student f, teacher t (`mini`'s image encoder) and caption features g,

    L = (CE(s f g, y) + CE(s f g, softmax(s t g))) / 2 + 5 (1 - cos(f, t)),   s = `mini`'s scale.

Until the learning rate decays, the student sees every scene as two random halves of its patches:
short sequences are cheap (FLIP, Li et al., CVPR 2023), and scene and teacher are used twice.  Muon
(Jordan et al., 2024) updates the blocks' matrices, AdamW all other parameters.

Run from the repository's root after `fetch` and `render`: `python -m tools.mini.pretrain_vit`.
It writes a checkpoint every two minutes and resumes from it when started again.  The rate is
constant before it decays, so that `--pairs` may change until then.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from clip.model import CLIP
from clip.vision_transformer import VisionTransformer
from clip.weights import load_clip
from tools.mini import pretrain
from tools.mini.batches import Corpus, PairBatch
from tools.mini.styles import WORK
from tools.mini.training import Recipe, Run, accuracies, normalised, read_options

PATCH, PATCHES = 8, 64
CONFIG = replace(
    pretrain.CONFIG, vision_layers=4, vision_width=192, vision_patch_size=PATCH, vision_heads=3
)
PARTS = 2  # of a scene, before the rate decays
SMOOTHING, DISTILLATION = 0.05, 5.0
DRAWN = 9  # random captions per concept, in addition to one per template


@dataclass(frozen=True, kw_only=True)
class SceneRecipe(Recipe):
    """Recipe with a constant rate that finally decays linearly.

    Attributes:
        warmup: pairs of the linear warm-up.
        decay_share: share of the pairs during which the rate decays to zero.
    """

    pairs: int = 400_000
    batch: int = 64
    rate: float = 3e-3
    warmup: int = 10_000
    decay_share: float = 0.25

    @property
    def steady(self) -> int:
        """Pairs before the rate decays."""
        return int(self.pairs * (1 - self.decay_share))


def learning_rate(recipe: SceneRecipe, pairs: int) -> float:
    """Return the rate after some pairs: linear warm-up, constant, then linear to zero."""
    left = (recipe.pairs - pairs) / (recipe.pairs - recipe.steady)
    return recipe.rate * max(0.0, min(1.0, (pairs + recipe.batch) / recipe.warmup, left))


def grid_positions(width: int, side: int) -> Float[Tensor, "patches width"]:
    """Return sines and cosines of both coordinates, so that neighbours start similar."""
    rates = 100.0 ** -(torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * rates
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    down, across = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    return torch.cat([down, across], dim=2).flatten(0, 1)


class Student(nn.Module):
    """The vision transformer, on scenes or on random parts of them."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = CLIP(replace(CONFIG, vocab_size=1)).visual
        tower = self.tower
        side = CONFIG.image_resolution // PATCH
        with torch.no_grad():
            tower.positional_embedding[1:] = 0.1 * grid_positions(CONFIG.vision_width, side)

    @property
    def tower(self) -> VisionTransformer:
        """The image encoder."""
        assert isinstance(self.visual, VisionTransformer)
        return self.visual

    def forward(
        self, pixels: Float[Tensor, "b 3 64 64"], order: Int[Tensor, "b patches"] | None = None
    ) -> Float[Tensor, "b parts embed"]:
        """Return normalised features at the class token.

        Args:
            pixels: scenes.
            order: a permutation of each scene's patches that is cut into parts; None: one part.
        """
        tower = self.tower
        patches = tower.conv1(pixels).flatten(2).transpose(1, 2) + tower.positional_embedding[1:]
        parts = 1
        if order is not None:
            patches = patches.gather(1, order[..., None].expand(-1, -1, patches.shape[-1]))
            parts = PARTS
        patches = patches.unflatten(1, (parts, -1)).flatten(0, 1)
        cls = (tower.class_embedding + tower.positional_embedding[0]).expand(len(patches), 1, -1)
        x = tower.ln_pre(torch.cat([cls, patches], dim=1)).transpose(0, 1)
        features = tower.ln_post(tower.transformer(x)[0]) @ tower.proj
        return functional.normalize(features.float(), dim=-1).unflatten(0, (-1, parts))


@torch.no_grad()
def caption_features(model: CLIP, texts: list[list[int]]) -> Float[Tensor, "texts embed"]:
    """Return normalised text features of token ids with start and end."""
    order = sorted(range(len(texts)), key=lambda k: len(texts[k]))
    features = torch.empty(len(texts), CONFIG.embed_dim)
    for start in range(0, len(order), 512):
        rows = order[start : start + 512]
        ids = np.zeros((len(rows), len(texts[rows[-1]])), dtype=np.int64)
        for row, k in zip(ids, rows, strict=True):
            row[: len(texts[k])] = texts[k]
        features[rows] = functional.normalize(model.encode_text(torch.from_numpy(ids)), dim=-1)
    return features


def caption_bank(model: CLIP, corpus: Corpus, seed: int) -> Float[Tensor, "captions names embed"]:
    """Return text features of every concept in every template and in random captions."""
    captioner, rng = corpus.captioner, np.random.default_rng(seed)
    concepts = range(len(corpus.concepts))

    def drawn(concept: int) -> list[int]:
        while not (caption := captioner.draw(concept, rng)).named:
            pass
        return caption.ids

    first = 1  # the first template is listed twice
    texts = [captioner.fill(k, t) for t in range(first, len(captioner.templates)) for k in concepts]
    texts += [drawn(k) for _ in range(DRAWN) for k in concepts]
    return caption_features(model, texts).unflatten(0, (-1, len(concepts)))


def make_optimizers(student: nn.Module, recipe: SceneRecipe) -> list[torch.optim.Optimizer]:
    """Return Muon for the blocks' matrices and AdamW for the rest."""
    named = dict(student.named_parameters())
    matrices = [p for name, p in named.items() if ".resblocks." in name and p.ndim == 2]
    ids = {id(p) for p in matrices}
    others = [p for p in named.values() if id(p) not in ids]
    muon = torch.optim.Muon(
        matrices, lr=recipe.rate, weight_decay=recipe.decay, adjust_lr_fn="match_rms_adamw"
    )
    adam = torch.optim.AdamW(others, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0, fused=True)
    return [muon, adam]


class SceneRun(Run[SceneRecipe]):
    """Pretraining of the image encoder."""

    name = "pretrain_vit"

    def __init__(
        self, recipe: SceneRecipe, folder: Path, corpus: Corpus, compiled: bool = False
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.student = Student()
        mini = load_clip("mini").model.requires_grad_(False)
        self.teacher = mini.visual.to(memory_format=torch.channels_last)
        self.scale = mini.logit_scale.exp().item()
        texts = [corpus.captioner.fill(k) for k in range(len(corpus.concepts))]
        self.texts = caption_features(mini, texts)
        self.bank = caption_bank(mini, corpus, recipe.seed)
        if compiled:
            self.student.compile(dynamic=False)
            self.teacher.compile(dynamic=False)
        optimizers = make_optimizers(self.student, recipe)
        super().__init__(recipe, folder, corpus, self.student, optimizers)

    def rate(self) -> float:
        """Return the learning rate of the next step."""
        return learning_rate(self.recipe, self.pairs)

    def resumable(self, saved: dict[str, Any], pairs: int) -> bool:
        """Before the rate decays, a run does not depend on its total of pairs."""
        steady = pairs <= min(SceneRecipe(**saved).steady, self.recipe.steady)
        total = {"pairs": self.recipe.pairs} if steady else {}
        return {**saved, **total} == asdict(self.recipe)

    def loss(self, batch: PairBatch) -> Float[Tensor, ""]:
        """Return the loss of one batch."""
        draw = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.pairs)
        captions = self.bank[torch.randint(len(self.bank), (), generator=draw)]
        order = None
        if self.pairs < self.recipe.steady:
            order = torch.rand(len(batch.images), PATCHES, generator=draw).argsort(1)
        pixels = normalised(batch.images)
        with torch.no_grad():
            wanted = functional.normalize(self.teacher(pixels).float(), dim=-1)[:, None]
            shares = (self.scale * wanted @ captions.t()).softmax(-1)
        with sdpa_kernel(SDPBackend.MATH):  # its gradient is the faster one for so few tokens
            features = self.student(pixels, order)
        parts = features.shape[1]
        logits = (self.scale * features @ captions.t()).flatten(0, 1)
        names = batch.concepts.repeat_interleave(parts)
        named = functional.cross_entropy(logits, names, label_smoothing=SMOOTHING)
        taught = functional.cross_entropy(logits, shares.expand(-1, parts, -1).flatten(0, 1))
        return (named + taught) / 2 + DISTILLATION * (1 - (features * wanted).sum(-1)).mean()

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """Return the accuracies."""
        # evaluation bypasses the compiled call, since other shapes would recompile it
        return accuracies(
            self.corpus, lambda images: self.student.forward(normalised(images))[:, 0], self.texts
        )


def main() -> None:
    """Run the command line."""
    options = read_options(__doc__, SceneRecipe())
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # on the CPU, too
    recipe = SceneRecipe(pairs=options.pairs, batch=options.batch, seed=options.seed)
    SceneRun(recipe, options.folder, Corpus.load(WORK), options.compile).train()


if __name__ == "__main__":
    main()
