"""Tip-Adapter-F: Tip-Adapter with trained keys (Zhang et al., ECCV 2022).

    L = CE(100 f G^T + alpha exp(-beta (1 - f K^T)) Y, y)

for the keys K, at the initial alpha and beta. Then alpha and beta are chosen on the validation
images, and the last epoch is tested (the published code chooses the epoch on the test images).
"""

from typing import Any

from torch.nn import functional

from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_optimizer, iteration_cosine

from .core.features.cache import RAW
from .core.features.views import ViewFeatures, view_loader
from .core.frozen_encoder import autocast
from .tip_adapter import TipAdapter


@TRAINER_REGISTRY.register()
class TipAdapterF(TipAdapter):
    """Tip-Adapter whose keys are trained."""

    resumes_within_epoch = trains_on_features = True
    run_epoch = TrainerX.run_epoch

    def build_optimizer(self) -> tuple[Any, Any]:
        """Return AdamW, and a cosine to 0 over all iterations."""
        optim, cfg = build_optimizer(self.model, self.cfg.OPTIM), self.cfg.OPTIM
        total = max(1, cfg.MAX_EPOCH * len(self.train_loader_x or ()))
        return optim, iteration_cosine(optim, total)

    def before_train(self) -> None:
        """Also replace the training images by cached augmentations if INPUT.TRAIN_VIEWS is set."""
        super().before_train()
        views, loader = self.cfg.INPUT.TRAIN_VIEWS, self.train_loader_x
        if views and not isinstance(loader.dataset, ViewFeatures):
            self.train_loader_x = view_loader(self, loader, views, kind=RAW)

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Run one optimisation step of the keys."""
        labels = batch["label"].to(self.device, non_blocking=True)
        if "features" in batch:
            raw = batch["features"].to(self.device, non_blocking=True)
        else:
            with autocast(self.clip_precision, self.device):
                raw = self.raw_features(batch["img"].to(self.device, non_blocking=True))
        logits = self.classify(functional.normalize(raw.float(), dim=-1))
        loss = functional.cross_entropy(logits, labels)
        self.model_backward_and_update(loss)
        self.update_lr()
        return {"loss": loss.detach(), "acc": compute_accuracy(logits, labels)[0]}
