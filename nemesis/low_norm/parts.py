"""Prompts of several layers in parts: those of an encoder, or of one of its layers."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from nemesis.report.results import Run
from safeio.errors import UserError
from trainers.core.frozen_encoder import autocast
from trainers.core.two_tower_trainer import TwoTowerTrainer
from trainers.core.two_towers import VISION
from trainers.nemesis import count_correct

MOST_AT_ONCE = 32
ENCODERS = "encoders"


def parts_of(results: Run) -> dict[str, int]:
    """Return the parts of a run's prompts and their numbers of positions.

    Returns:
        {"text": n, "text.0": n, ..., "vision": n, ...}; {"": L} for prompts of one layer.
    """
    parts: dict[str, int] = {}
    for tower, shape in results.get("prompts", {}).items():
        layers = [f"{tower}.{layer}" for layer in range(shape["depth"])] if shape["depth"] else []
        names = layers if len(layers) < 2 else [tower, *layers]
        parts |= dict.fromkeys(names, shape["length"])
    return parts or {"": int(results["n_ctx"])}


def check_parts(wanted: list[str] | None, parts: Mapping[str, int]) -> list[str]:
    """Return the wanted parts, by default all; ENCODERS alone means each encoder as a whole.

    Raises:
        UserError: the run has no such part.
    """
    if wanted == [ENCODERS]:
        return [part for part in parts if "." not in part]
    for part in wanted or ():
        if part not in parts:
            known = ", ".join(filter(None, parts)) or "none, since they enter one layer"
            raise UserError(
                f"its prompts have no part {part!r}; the parts are {known}, and {ENCODERS} alone "
                "means each encoder as a whole"
            )
    return list(wanted or parts)


class TowerEvaluator:
    """Counts the test images that each of many prompts of one part classifies correctly.

    Args:
        trainer: with data and loaded prompts.
        part: see `parts_of`.

    Attributes:
        ctx: the learned prompts of the part, (n, D) of a layer or (d, n, D) of an encoder.
        split: the tested split.
        total: number of test images.
        at_once: number of groups for one call of `count`.
    """

    at_once = MOST_AT_ONCE

    def __init__(self, trainer: TwoTowerTrainer, part: str) -> None:
        self.trainer = trainer
        self.tower, _, layer = part.partition(".")
        self.layer = int(layer) if layer else None
        self.split, self.loader = trainer.evaluation_set()
        self.total = len(self.loader.dataset)
        self._whole = trainer.model.prompt_learner.learned()[self.tower].detach()
        self.ctx = self._whole if self.layer is None else self._whole[self.layer]
        self._encodes_images = self.tower == VISION or trainer.model.prompt_learner.coupled
        self._features: list[tuple[Tensor, Tensor]] = []  # of images whose prompts do not change

    @torch.no_grad()
    def count(self, groups: Float[Tensor, "groups *layers length width"]) -> Int[Tensor, " groups"]:
        """Count the correctly classified images under each group's prompts of the part."""
        model, device = self.trainer.model, self.trainer.device
        if self.layer is not None:
            whole = self._whole.repeat(len(groups), 1, 1, 1)
            whole[:, self.layer] = groups
            groups = whole
        with autocast(self.trainer.clip_precision, device):
            learned = model.prompt_learner() if self.tower == VISION else groups
            text = model.text_features(learned).expand(len(groups), -1, -1)
            correct = torch.zeros(len(groups), dtype=torch.long, device=device)
            for features, labels in self._batches(groups):
                correct += count_correct(model.match(features, text), labels)
        return correct

    def _batches(self, groups: Tensor) -> Any:
        """Yield the image features (B, E), or (G, B, E) under each group, and labels."""
        model = self.trainer.model
        if not self._encodes_images:
            if not self._features:
                self._features = [(model.image_features(i), y) for i, y in self._images()]
            yield from self._features
            return
        vision = model.prompt_learner.couple(groups) if model.prompt_learner.coupled else groups
        for images, labels in self._images():
            features = [model.image_encoder(images, one) for one in vision]
            yield functional.normalize(torch.stack(features), dim=-1), labels

    def _images(self) -> Any:
        for batch in self.loader:
            yield self.trainer.parse_batch_test(batch)
