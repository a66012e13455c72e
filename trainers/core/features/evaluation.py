"""Evaluation on cached image features, where inference is exactly classify(image_features(images)).

A trainer declares so by its class attributes; see `INFERENCE` and `CLASSIFY`. Where one is lowered,
images are decoded and `model_inference` is called as in any other trainer.
"""

import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import SequentialSampler
from tqdm import tqdm

from clip.weights import LoadedCLIP
from dassl.config import CfgNode
from dassl.data import DatasetWrapper
from dassl.data.samplers import SequentialSampler as DasslSequentialSampler
from dassl.engine.capabilities import Capability
from safeio.errors import UserError

from ..precision import autocast
from .cache import FeatureCache, is_frozen
from .store import StoredRows

# `features`, the kind of features that training and inference take: "pooled", (B, E), or "local",
# (B, M, E). None: they need the images.
INFERENCE = Capability(frozenset({"model_inference", "parse_batch_test", "image_features"}), None)
# `standard_classify`: logits are all that `classify` computes.
CLASSIFY = Capability(frozenset({"classify"}))

# Why a method has no `class_weights`, where it does not say more.
NO_MATRIX = "classifies in a way of its own"


def no_class_weights(cfg: CfgNode, why: str) -> UserError:
    """The error of a method whose logits are not exp(logit_scale) * f @ W^T with one W."""
    return UserError(
        f"{cfg.TRAINER.NAME} {why}, so that no matrix of text features, the same for all images, "
        "classifies as it does; methods that have one are CoOp and zero-shot CLIP"
    )


@runtime_checkable
class FrozenCLIPTrainer(Protocol):
    """A trainer that classifies with a frozen CLIP, as evaluation and export see it."""

    cfg: Any
    device: torch.device
    dm: Any
    model: Any
    loaded_clip: LoadedCLIP
    cached_features: "CachedFeatures"

    @property
    def tower_precision(self) -> str:
        """The towers' precision, one of `PRECISIONS`."""

    def feature_kind(self) -> str | None:
        """The kind of features that `classify` takes; None if inference needs the images."""

    def image_features(self, images: Tensor) -> Tensor:
        """Normalised features of the frozen tower (B, E) or (B, M, E)."""

    def classify(self, image_features: Tensor) -> Tensor:
        """Logits (B, C) of images that are given by their features."""

    def model_inference(self, input: Any) -> Tensor:
        """Logits (B, C) of images."""

    def test(self, split: str | None = None) -> float:
        """Accuracy in percent on a split."""

    def cached_text_features(self) -> AbstractContextManager[None]:
        """Within this context nothing learns, and text features are computed once."""

    def class_weights(self) -> Float[Tensor, "classes embed"]:
        """W of logits = exp(logit_scale) * f @ W^T.

        Raises:
            UserError: the method has no such matrix.
        """


class CachedFeatures:
    """The image features of a trainer's frozen tower, each computed once.

    Args:
        trainer: a `FrozenCLIPTrainer`, which gets this as its `cached_features`.
    """

    def __init__(self, trainer: Any) -> None:
        # No cycle: a finished trainer and its loaders' processes go at once.
        self.trainer: FrozenCLIPTrainer = weakref.proxy(trainer)
        self._opened: dict[Any, StoredRows | None] = {}

    @cached_property
    def cache(self) -> FeatureCache:
        """The files; may be set to those of another trainer with the same tower and folder."""
        one = self.trainer
        return FeatureCache(one.cfg, one.loaded_clip, one.tower_precision, one.device)

    def kind(self) -> str | None:
        """The trainer's kind of features; None if they may differ from one time to the next."""
        frozen = is_frozen(self.trainer.loaded_clip.model.visual)
        return self.trainer.feature_kind() if frozen else None

    def of(self, loader: Any) -> StoredRows | None:
        """The features of a loader's images, one row each; None where images are needed."""
        kind = self.kind()
        if kind is None or not _reads_files_in_order(loader):
            return None
        if loader not in self._opened:
            self._opened[loader] = self.cache.get(
                loader.dataset, kind, lambda: self.compute(loader)
            )
        return self._opened[loader]

    def compute(self, loader: Any) -> Iterator[Float[Tensor, "batch *tokens embed"]]:
        """Run all images of a loader through the tower."""
        trainer = self.trainer
        print(f"Computing the features of {len(loader.dataset):,} images once for all runs")
        for batch in tqdm(loader, disable=None, leave=False):
            images = batch["img"].to(trainer.device, non_blocking=True)
            with torch.no_grad(), autocast(trainer.tower_precision, trainer.device):
                features = trainer.image_features(images)
            yield features

    def predictions(
        self, loader: Any
    ) -> Iterator[tuple[Float[Tensor, "batch classes"], Int[Tensor, " batch"]]] | None:
        """Scores and labels of a loader's images; None where images are needed.

        The batches are those of the loader, so that not a bit differs from an evaluation without
        the cache (of local features, all but their rounding).
        """
        rows = self.of(loader)
        return None if rows is None else self._classify(rows, loader)

    def _classify(self, rows: StoredRows, loader: Any) -> Iterator[tuple[Tensor, Tensor]]:
        trainer, size = self.trainer, loader.batch_size
        labels = torch.tensor([item.label for item in loader.dataset.data_source])
        for start in tqdm(range(0, len(rows), size), disable=None, leave=False):
            features = rows.read(start, start + size).to(trainer.device)
            with autocast(trainer.tower_precision, trainer.device):
                scores = trainer.classify(features)
            yield scores, labels[start : start + size].to(trainer.device)


def _reads_files_in_order(loader: Any) -> bool:
    """Whether a loader gives every image of its list once, in order, and nothing but files."""
    return (
        type(loader.dataset) is DatasetWrapper
        and not loader.dataset.is_train
        and type(loader.sampler) in (SequentialSampler, DasslSequentialSampler)
        and not loader.drop_last
        and bool(loader.batch_size)
    )
