"""What methods on a frozen image tower share: features once, logits as often as needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import SequentialSampler
from tqdm import tqdm

from clip.weights import LoadedCLIP
from dassl.data import DatasetWrapper
from dassl.data.samplers import SequentialSampler as OurSequentialSampler
from dassl.engine import TrainerX
from safeio.errors import UserError
from trainers.core.features.store import StoredRows

from .features.cache import FeatureCache, is_frozen
from .frozen_clip import autocast


class FeatureTrainer(TrainerX):
    """Evaluates on kept image features, wherever its inference is known to be made of them.

    A subclass says in `feature_kind` whether that is so. Where a class of its own changes the
    inference, images are decoded and `model_inference` is called as in any other trainer.
    """

    loaded_clip: LoadedCLIP

    @property
    def tower_precision(self) -> str:
        """The precision of the towers, one of `PRECISIONS`."""
        raise NotImplementedError

    def feature_kind(self) -> str | None:
        """The kind of features that `classify` takes; None if inference needs the images."""
        return None

    def image_features(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch *tokens embed"]:
        """Normalised features of the frozen tower."""
        raise NotImplementedError

    def classify(
        self, image_features: Float[Tensor, "batch *tokens embed"]
    ) -> Float[Tensor, "batch classes"]:
        """Logits of images that are given by their features."""
        raise NotImplementedError

    @contextmanager
    def fixed_classifier(self) -> Iterator[None]:
        """Within this context many batches are classified and nothing learns."""
        with torch.no_grad(), autocast(self.tower_precision, self.device):
            yield

    def class_weights(self) -> Float[Tensor, "classes embed"]:
        """W of logits = exp(logit_scale) * f @ W^T, where a method has such a matrix.

        Raises:
            UserError: it has none.
        """
        raise UserError(
            f"{self.cfg.TRAINER.NAME} does not classify by one matrix of text features that is "
            "the same for all images; methods that do are CoOp and zero-shot CLIP"
        )

    @property
    def feature_cache(self) -> FeatureCache:
        """The kept features of this run's tower; made at first use."""
        if "_feature_cache" not in self.__dict__:
            self._feature_cache = FeatureCache(
                self.cfg, self.loaded_clip, self.tower_precision, self.device
            )
        return self._feature_cache

    @feature_cache.setter
    def feature_cache(self, cache: FeatureCache) -> None:
        """Take over that of another trainer with the same tower and the same folder."""
        self._feature_cache = cache

    def predictions(
        self, loader: Any
    ) -> Iterator[tuple[Float[Tensor, "batch classes"], Int[Tensor, " batch"]]]:
        """Scores and labels, from kept features where that is possible.

        The batches are those of the loader, so that not a bit differs from an evaluation without
        the cache (of local features, all but their rounding).
        """
        kept = self.kept_features(loader)
        if kept is None:
            yield from super().predictions(loader)
            return
        labels = torch.tensor([item.label for item in loader.dataset.data_source])
        size = loader.batch_size
        for start in tqdm(range(0, len(kept), size), disable=None, leave=False):
            features = kept.read(start, start + size).to(self.device)
            with autocast(self.tower_precision, self.device):
                scores = self.classify(features)
            yield scores, labels[start : start + size].to(self.device)

    def kept_features(self, loader: Any) -> StoredRows | None:
        """The features of a loader's images, one row each; None where images are needed."""
        kind = self.feature_kind()
        if kind is None or not _goes_through_files(loader) or not self.tower_is_frozen():
            return None
        known = self.__dict__.setdefault("_kept_features", {})
        if loader not in known:
            known[loader] = self.feature_cache.get(
                loader.dataset, kind, lambda: self.compute_features(loader)
            )
        return known[loader]

    def compute_features(self, loader: Any) -> Iterator[Float[Tensor, "batch *tokens embed"]]:
        """Run all images of a loader through the tower."""
        print(f"Computing the features of {len(loader.dataset):,} images once for all runs")
        for batch in tqdm(loader, disable=None, leave=False):
            images = batch["img"].to(self.device, non_blocking=True)
            with torch.no_grad(), autocast(self.tower_precision, self.device):
                features = self.image_features(images)
            yield features

    def tower_is_frozen(self) -> bool:
        """Whether the tower gives the same features of an image every time."""
        return is_frozen(self.loaded_clip.model.visual)


def _goes_through_files(loader: Any) -> bool:
    """Whether a loader gives every image of its list once, in order, and nothing but files."""
    return (
        type(loader.dataset) is DatasetWrapper
        and not loader.dataset.is_train
        and type(loader.sampler) in (SequentialSampler, OurSequentialSampler)
        and not loader.drop_last
        and bool(loader.batch_size)
    )
