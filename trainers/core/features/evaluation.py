"""Evaluate on cached image features if inference is exactly classify(image_features(images)).

A trainer declares this in class attributes; see `INFERENCE` and `CLASSIFY`. If one is lowered,
evaluation decodes images and calls `model_inference`, as in any other trainer.
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

from ..frozen_encoder import autocast
from .cache import RAW, STORED_AS, FeatureCache, is_frozen
from .store import StoredRows

# `features`: kind of features that training and inference take, "pooled" (B, E) or "local"
# (B, M, E); None if they need the images.
INFERENCE = Capability(frozenset({"model_inference", "parse_batch_test", "image_features"}), None)
# `standard_classify`: `classify` computes the logits and nothing else.
CLASSIFY = Capability(frozenset({"classify"}))

# Bytes of features to read at once: each copy to an accelerator waits for it.
BYTES_AT_ONCE = {"cpu": 0}
BYTES_AT_ONCE_ELSEWHERE = 1 << 30

# Default reason why a method has no `class_weights`.
NO_MATRIX = "overrides inference"


def no_class_weights(cfg: CfgNode, why: str) -> UserError:
    """Return the error for a method whose logits are not exp(logit_scale) * f @ W^T with one W."""
    return UserError(
        f"{cfg.TRAINER.NAME} {why}, so no matrix of text features gives its logits for all images; "
        "choose a run of another method, such as CoOp"
    )


@runtime_checkable
class FeatureEncoder(Protocol):
    """Interface of what computes frozen image features."""

    cfg: Any
    device: torch.device
    max_epoch: int
    loaded_clip: LoadedCLIP
    cached_features: "CachedFeatures"

    @property
    def clip_precision(self) -> str:
        """The precision of the frozen CLIP, one of `PRECISIONS`."""

    def feature_kind(self) -> str | None:
        """Return the kind of the features; None if inference needs images."""

    def image_features(self, images: Tensor) -> Tensor:
        """Return normalised frozen image features (B, E) or (B, M, E)."""


@runtime_checkable
class FrozenCLIPTrainer(FeatureEncoder, Protocol):
    """Interface of a trainer with a frozen CLIP that evaluation and export use."""

    dm: Any
    model: Any

    def classify(self, image_features: Tensor) -> Tensor:
        """Return the logits (B, C) of image features."""

    def model_inference(self, input: Any) -> Tensor:
        """Return the logits (B, C) of images."""

    def test(self, split: str | None = None) -> float:
        """Return the accuracy in percent on a split."""

    def cached_text_features(self) -> AbstractContextManager[None]:
        """Compute the text features once for this context, in which nothing is trained."""

    def class_weights(self) -> Float[Tensor, "classes embed"]:
        """Return W of logits = exp(logit_scale) * f @ W^T.

        Raises:
            UserError: no W gives the logits for all images.
        """


class CachedFeatures:
    """Image features of a `FrozenCLIPTrainer`'s loaders, each computed once."""

    def __init__(self, trainer: Any) -> None:
        # A reference cycle would delay the end of a finished trainer's data-loading processes.
        self.trainer: FrozenCLIPTrainer = weakref.proxy(trainer)
        self._opened: dict[Any, StoredRows | None] = {}

    @cached_property
    def cache(self) -> FeatureCache:
        """The cache on disk; a trainer of a batch shares that of another trainer."""
        trainer = self.trainer
        return FeatureCache(
            trainer.cfg, trainer.loaded_clip, trainer.clip_precision, trainer.device
        )

    def kind(self) -> str | None:
        """Return the trainer's kind of features; None if they are not fixed."""
        frozen = is_frozen(self.trainer.loaded_clip.model.visual)
        return self.trainer.feature_kind() if frozen else None

    def of(self, loader: Any) -> StoredRows | None:
        """Return the features of a loader's images, one row each; None if images are needed."""
        kind = self.kind()
        if kind is None or not _reads_files_in_order(loader):
            return None
        if loader not in self._opened:
            self._opened[loader] = self.cache.get(
                loader.dataset, kind, lambda: self.compute(loader)
            )
        return self._opened[loader]

    def rows(self, loader: Any) -> StoredRows:
        """Return the features of a loader's images as `of`; computed in memory if uncached.

        The trainer's inference must be made of features.
        """
        rows = self.of(loader)
        if rows is None:
            kind = self.trainer.feature_kind()
            rows = StoredRows.in_memory(self.compute(loader), STORED_AS[str(kind)])
        return rows

    def compute(
        self, loader: Any, kind: str | None = None
    ) -> Iterator[Float[Tensor, "batch *tokens embed"]]:
        """Compute the features of all images of a loader, batch by batch; default: the trainer's.

        The kind `RAW` needs the trainer's `raw_features`.
        """
        trainer: Any = self.trainer
        encode = trainer.raw_features if kind == RAW else trainer.image_features
        print(f"Computing the features of {len(loader.dataset):,} images once for all runs")
        for batch in tqdm(loader, disable=None, leave=False):
            images = batch["img"].to(trainer.device, non_blocking=True)
            with torch.no_grad(), autocast(trainer.clip_precision, trainer.device):
                features = encode(images)
            yield features

    def predictions(
        self, loader: Any
    ) -> Iterator[tuple[Float[Tensor, "batch classes"], Int[Tensor, " batch"]]] | None:
        """Return the logits and labels of a loader's images; None if images are needed.

        The batches are the loader's, so that logits equal those without the cache bit for bit
        (except for the rounding of local features).
        """
        rows = self.of(loader)
        return None if rows is None else self._classify(rows, loader)

    def _classify(self, rows: StoredRows, loader: Any) -> Iterator[tuple[Tensor, Tensor]]:
        trainer, size, device = self.trainer, loader.batch_size, self.trainer.device
        labels = labels_of(loader).to(device)
        limit = BYTES_AT_ONCE.get(device.type, BYTES_AT_ONCE_ELSEWHERE)
        batches = max(1, limit * len(rows) // rows.nbytes // size)
        for first in tqdm(range(0, len(rows), batches * size), disable=None, leave=False):
            part = rows.read(first, first + batches * size, device)
            pairs = zip(part.split(size), labels[first:].split(size), strict=False)
            for features, targets in pairs:
                with autocast(trainer.clip_precision, device):
                    scores = trainer.classify(features)
                yield scores, targets


def labels_of(loader: Any) -> Int[Tensor, " images"]:
    """Return the labels of a loader's images in the order of its list; none without a loader."""
    items = loader.dataset.data_source if loader is not None else ()
    return torch.tensor([item.label for item in items], dtype=torch.long)


def _reads_files_in_order(loader: Any) -> bool:
    """Return whether a loader reads every image file of its list once, in order."""
    return (
        type(loader.dataset) is DatasetWrapper
        and not loader.dataset.is_train
        and type(loader.sampler) in (SequentialSampler, DasslSequentialSampler)
        and not loader.drop_last
        and bool(loader.batch_size)
    )
