"""Dassl's plain classifier: backbone, perhaps a head, and a linear layer."""

from typing import Any

from torch import Tensor, nn

from ..modeling import build_backbone, build_head


class SimpleNet(nn.Module):
    """A backbone with a classifier.

    Args:
        cfg: VERBOSE is read.
        model_cfg: BACKBONE and HEAD, such as cfg.MODEL.
        num_classes: 0 for features without a classifier.
        **kwargs: for backbone and head.
    """

    def __init__(self, cfg: Any, model_cfg: Any, num_classes: int, **kwargs: Any) -> None:
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
        """Width of the features that the classifier gets."""
        return self._fdim

    def forward(self, x: Tensor, return_feature: bool = False) -> Any:
        """Scores (batch, classes) of images, with `return_feature` also their features.

        Without a classifier, the features alone.
        """
        features = self.backbone(x)
        if self.head is not None:
            features = self.head(features)
        if self.classifier is None:
            return features
        scores = self.classifier(features)
        return (scores, features) if return_feature else scores
