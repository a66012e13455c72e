"""Loss and accuracy of a run's CLIP under any updates of its weights, on one set of images."""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from nemesis.inference.classifier import load
from trainers.core.frozen_encoder import autocast, encode_frozen
from trainers.core.lora import Deltas, merge
from trainers.core.lora_clip import LoRACLIP
from trainers.core.lora_settings import TEXT, VISION

from .analysis import keep_players

HELD_BYTES = 1 << 30  # of decoded images; more are read again for every update
CACHED = 256  # features of an encoder under the latest updates


class Score(NamedTuple):
    """Mean cross-entropy, and accuracy in percent."""

    loss: float
    accuracy: float


class Scorer:
    """Scores updates of the weights; the frozen image encoder runs once.

    Args:
        model: the CLIP.
        labels: of all images.
        images: returns all images in batches.
        pooled: the normalised features of the frozen image encoder, if they are known.
    """

    def __init__(
        self,
        model: LoRACLIP,
        labels: Int[Tensor, " images"],
        images: Callable[[], Iterable[Tensor]],
        pooled: Float[Tensor, "images embed"] | None = None,
    ) -> None:
        self.model, self.labels, self._images, self._pooled = model, labels, images, pooled

    @cached_property
    def _frozen(self) -> Tensor:
        return self._encode({}) if self._pooled is None else self._pooled

    def _encode(self, deltas: Deltas) -> Tensor:
        encode = merge(self.model.frozen, deltas).encode_image
        return torch.cat([encode_frozen(encode, images) for images in self._images()])

    def image_features(self, deltas: Deltas) -> Float[Tensor, "images embed"]:
        """Return the image features under those updates that are of the image encoder."""
        own = {key: one for key, one in deltas.items() if key.startswith(VISION)}
        return self._encode(own) if own else self._frozen

    def text_features(self, deltas: Deltas) -> Float[Tensor, "classes embed"]:
        """Return the text features under those updates that are of the text encoder."""
        own = {key: one for key, one in deltas.items() if key.startswith(TEXT)}
        return self.model.text_features_of(merge(self.model.frozen, own))

    @torch.no_grad()
    def match(self, image: Tensor, text: Tensor) -> Float[Tensor, "images classes"]:
        """Return the logits of image and text features."""
        return self.model.frozen.logit_scale.exp() * image @ text.mT

    def logits(self, deltas: Deltas) -> Float[Tensor, "images classes"]:
        """Return the logits of all images under updates of the weights."""
        return self.match(self.image_features(deltas), self.text_features(deltas))

    def score(self, logits: Float[Tensor, "images classes"]) -> Score:
        """Return loss and accuracy of logits of all images."""
        loss = functional.cross_entropy(logits.float(), self.labels)
        correct = (logits.argmax(dim=-1) == self.labels).float().mean()
        return Score(loss.item(), 100 * correct.item())

    def subset_logits(self, deltas: Deltas, players: Sequence[str]) -> Callable[[int], Tensor]:
        """Return a function of subsets of the players: the logits with their blocks' updates only.

        Subsets that agree in one encoder compute its features once.
        """
        masks = {
            tower: sum(1 << bit for bit, one in enumerate(players) if one.startswith(tower))
            for tower in (VISION, TEXT)
        }
        image = lru_cache(CACHED)(lambda s: self.image_features(keep_players(deltas, players, s)))
        text = lru_cache(CACHED)(lambda s: self.text_features(keep_players(deltas, players, s)))
        return lambda subset: self.match(image(subset & masks[VISION]), text(subset & masks[TEXT]))


def run_scorer(path: Path, **options: Any) -> Scorer:
    """Load a run of adapters and return the scorer of its test images.

    Args:
        path: the run's folder.
        options: see `nemesis.load`.

    Raises:
        UserError: the run cannot be loaded, or images are missing.
    """
    trainer: Any = load(path, with_data=True, **options).trainer
    trainer.check_evaluation()
    _, loader = trainer.evaluation_set()
    device = trainer.device
    mixed = autocast(trainer.clip_precision, device)
    labels = torch.tensor([item.label for item in loader.dataset.data_source], device=device)
    if trainer.feature_kind() is not None:
        with torch.no_grad(), mixed:
            rows = trainer.cached_features.rows(loader)
            pooled = rows.read(0, len(rows)).to(device)
        return Scorer(trainer.model, labels, lambda: [], pooled)

    def read() -> Iterable[Tensor]:
        return (batch["img"].to(device, non_blocking=True) for batch in loader)

    side = trainer.loaded_clip.model.visual.input_resolution
    if len(labels) * 3 * side**2 * 4 > HELD_BYTES:
        return Scorer(trainer.model, labels, read)
    held = list(read())
    return Scorer(trainer.model, labels, lambda: held)
