"""Dassl's classifier: a backbone, an optional head and a linear layer."""

from typing import Any

from torch import Tensor, nn

from ..config import Config
from ..modeling import build_backbone, build_head


class SimpleNet(nn.Module):
    """A backbone with a classifier.

    Args:
        cfg: the configuration, for VERBOSE.
        model_cfg: BACKBONE and HEAD, such as cfg.MODEL.
        num_classes: 0 for no classifier.
        **kwargs: passed to backbone and head.
    """

    def __init__(self, cfg: Config, model_cfg: Any, num_classes: int, **kwargs: Any) -> None:
        super().__init__()
        backbone, head = model_cfg.BACKBONE, model_cfg.HEAD
        self.backbone = build_backbone(
            backbone.NAME, verbose=cfg.VERBOSE, pretrained=backbone.PRETRAINED, **kwargs
        )
        self._fdim: int = self.backbone.out_features
        self.head = None
        if head.NAME and head.HIDDEN_LAYERS:
            self.head = build_head(
                head.NAME,
                verbose=cfg.VERBOSE,
                in_features=self._fdim,
                hidden_layers=head.HIDDEN_LAYERS,
                activation=head.ACTIVATION,
                bn=head.BN,
                dropout=head.DROPOUT,
                **kwargs,
            )
            self._fdim = self.head.out_features
        self.classifier = nn.Linear(self._fdim, num_classes) if num_classes > 0 else None

    @property
    def fdim(self) -> int:
        """Width of the classifier's input features."""
        return self._fdim

    def forward(self, x: Tensor, return_feature: bool = False) -> Any:
        """Return the logits (batch, classes) of images and, with `return_feature`, the features.

        Without a classifier, return only the features (batch, width).
        """
        features = self.backbone(x)
        if self.head is not None:
            features = self.head(features)
        if self.classifier is None:
            return features
        logits = self.classifier(features)
        return (logits, features) if return_feature else logits
