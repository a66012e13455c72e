"""Base trainer of all methods with a frozen CLIP: one optimisation step, cached features."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clip.weights import LoadedCLIP
from dassl.engine import TrainerX
from dassl.engine.capabilities import Capability

from .features.evaluation import CLASSIFY, INFERENCE, CachedFeatures, FeatureEncoder
from .features.views import TRAINING, ViewFeatures, view_loader
from .frozen_encoder import autocast
from .training_step import RESUMABLE


class CLIPTrainer(TrainerX):
    """Step and evaluation of a trainer with a frozen CLIP; a subclass defines the model and `loss`.

    Attributes:
        node: name of the method's configuration node.
        lr_per_batch: the learning-rate schedule counts batches, not epochs.
    """

    node = ""
    lr_per_batch = False
    features: str | None = "pooled"
    standard_classify = True
    trains_on_features = True
    resumes_within_epoch = standard_test = True
    capabilities: ClassVar[dict[str, Capability]] = {
        **TrainerX.capabilities,
        "resumes_within_epoch": Capability(RESUMABLE),
        "features": INFERENCE,
        "standard_classify": CLASSIFY,
        "trains_on_features": TRAINING,
    }
    loaded_clip: LoadedCLIP
    cached_features: CachedFeatures
    optim: torch.optim.Optimizer
    sched: Any

    @property
    def method_cfg(self) -> Any:
        """The method's own configuration node."""
        return self.cfg.TRAINER[self.node]

    @property
    def clip_precision(self) -> str:
        """The precision of the frozen CLIP."""
        return self.method_cfg.PREC

    @property
    def view_encoder(self) -> FeatureEncoder:
        """Encodes the cached augmentations; if it is another object, steps take the images, too."""
        return self

    def build_scaler(self) -> torch.amp.GradScaler:
        """Return the gradient scaler, which only amp on CUDA needs."""
        scales = self.clip_precision == "amp" and self.device.type == "cuda"
        return torch.amp.GradScaler(self.device.type, enabled=scales)

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Run one optimisation step."""
        with autocast(self.clip_precision, self.device):
            loss, summary = self.batch_loss(batch)
        self.model_backward_and_update(loss)
        if self.lr_per_batch or self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return summary

    def model_backward(self, loss: Tensor) -> None:
        """Check the loss and compute its gradients, under the gradient scaler."""
        self.detect_anomaly(loss)
        self.scaler.scale(loss).backward()

    def model_update(self, names: Any = None) -> None:
        """Check the gradients and step the optimiser, under the gradient scaler."""
        self.detect_bad_gradients(names)
        self.scaler.step(self.optim)
        self.scaler.update()

    def features_and_labels(
        self, batch: dict[str, Any]
    ) -> tuple[Float[Tensor, "batch *tokens embed"], Int[Tensor, " batch"]]:
        """Return the batch's image features, cached (INPUT.TRAIN_VIEWS) or computed, and labels."""
        if "features" in batch:
            return self._on_device(batch["features"]), self._on_device(batch["label"])
        images, labels = self.parse_batch_train(batch)
        return self.image_features(images), labels

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the images and labels of a batch on the trainer's device."""
        return self._on_device(batch["img"]), self._on_device(batch["label"])

    def _on_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

    def before_train(self) -> None:
        """Replace the training images by cached augmentations if INPUT.TRAIN_VIEWS is set."""
        super().before_train()
        views, loader = self.cfg.INPUT.TRAIN_VIEWS, self.train_loader_x
        trains = loader is not None and self.start_epoch < self.max_epoch
        if views and trains and not isinstance(loader.dataset, ViewFeatures):
            with_images = self.view_encoder is not self
            self.train_loader_x = view_loader(self.view_encoder, loader, views, with_images)

    def predictions(
        self, loader: Any
    ) -> Iterator[tuple[Float[Tensor, "batch classes"], Int[Tensor, " batch"]]]:
        """Yield logits and labels, from cached image features if inference allows it."""
        yield from self.cached_features.predictions(loader) or super().predictions(loader)

    def test(self, split: str | None = None) -> float:
        """Evaluate a split; the text features are computed once."""
        with self.cached_text_features():
            return super().test(split)

    def batch_loss(self, batch: dict[str, Any]) -> tuple[Float[Tensor, ""], dict[str, Any]]:
        """Return the training loss of a loader's batch and the values to log."""
        return self.loss(*self.features_and_labels(batch))

    def feature_kind(self) -> str | None:
        """Return the kind of features that `classify` takes; None if inference needs images."""
        raise NotImplementedError

    def loss(
        self,
        image_features: Float[Tensor, "batch *tokens embed"],
        labels: Int[Tensor, " batch"],
    ) -> tuple[Float[Tensor, ""], dict[str, Any]]:
        """Return the training loss of a batch and the values to log."""
        raise NotImplementedError

    def image_features(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch *tokens embed"]:
        """Return the normalised image features that the model matches."""
        raise NotImplementedError

    def cached_text_features(self) -> AbstractContextManager[None]:
        """Compute the text features once for a context in which nothing is trained."""
        raise NotImplementedError
