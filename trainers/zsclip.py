"""Zero-shot CLIP, the baseline without training.

Learning Transferable Visual Models From Natural Language Supervision (Radford et al., ICML 2021):
the class weights are the text features of a hand-written template, such as "a photo of a {}.", or
the mean over several templates (prompt ensembling, section 3.1.4).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from clip.weights import LoadedCLIP
from dassl.config import CfgNode, declare_config
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.engine.capabilities import Capability
from dassl.utils import choose_device

from .core.features.evaluation import (
    CLASSIFY,
    INFERENCE,
    NO_MATRIX,
    CachedFeatures,
    no_class_weights,
)
from .core.frozen_clip import load_frozen_clip
from .core.frozen_encoder import autocast, check_precision, encode_frozen
from .core.teacher import DEFAULT_TEMPLATE, check_template, encode_template

DEFAULT_TEMPLATES = (DEFAULT_TEMPLATE,)

SELECTED_TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)

declare_config("TRAINER.ZSCLIP", {"PREC": "fp32"})


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(TrainerX):
    """Classifies with the dataset's hand-written template, without training.

    Attributes:
        no_matrix: why a subclass has no `class_weights`, for the error message.
        features: kind of image features that inference takes; see `INFERENCE`.
        standard_classify: logits are exp(logit_scale) * f @ text_features^T.
    """

    paper = "Radford et al., ICML 2021"
    prompts = "a hand-written template"
    towers = "text"
    learns = False
    no_matrix = NO_MATRIX
    features: str | None = "pooled"
    standard_classify = True
    capabilities: ClassVar[dict[str, Capability]] = {
        **TrainerX.capabilities,
        "features": INFERENCE,
        "standard_classify": CLASSIFY,
    }

    loaded_clip: LoadedCLIP
    text_features: Tensor

    @property
    def clip_precision(self) -> str:
        """The precision of the frozen CLIP."""
        return self.cfg.TRAINER.ZSCLIP.PREC

    def check_cfg(self, cfg: CfgNode) -> None:
        """Check the precision before anything is loaded."""
        check_precision(cfg.TRAINER.ZSCLIP.PREC, choose_device(cfg))

    def build_model(self) -> None:
        """Load CLIP and encode the class names in the templates."""
        self.loaded_clip = load_frozen_clip(self.cfg, self.device, self.clip_precision)
        self.cached_features = CachedFeatures(self)
        dataset = self.dm.dataset
        default = getattr(dataset, "templates", DEFAULT_TEMPLATES)
        templates = self.select_templates(tuple(self.cfg.DATASET.TEMPLATES) or default)
        features = [self._encode(template, dataset.classnames) for template in templates]
        self.text_features = functional.normalize(torch.stack(features).mean(0), dim=-1)

    def select_templates(self, templates: Sequence[str]) -> Sequence[str]:
        """Choose from the dataset's templates those to average over; subclasses may override."""
        return templates[:1]

    def _encode(self, template: str, classnames: list[str]) -> Float[Tensor, "classes embed"]:
        check_template("DATASET.TEMPLATES", template)
        return encode_template(self.loaded_clip.model, template, classnames)

    def model_inference(
        self,
        input: Float[Tensor, "batch 3 height width"],
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits of images."""
        with autocast(self.clip_precision, self.device):
            return self.classify(self.image_features(input))

    def image_features(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch embed"]:
        """Return normalised image features."""
        return encode_frozen(self.loaded_clip.model.encode_image, images)

    def classify(
        self, image_features: Float[Tensor, "batch embed"]
    ) -> Float[Tensor, "batch classes"]:
        """Return logits: the scaled cosine similarities of image features to the class weights."""
        return self.loaded_clip.model.logit_scale.exp() * image_features @ self.text_features.T

    def feature_kind(self) -> str | None:
        """Return the kind of features that `classify` takes; None if inference needs images."""
        return self.features

    def predictions(
        self, loader: Any
    ) -> Iterator[tuple[Float[Tensor, "batch classes"], Int[Tensor, " batch"]]]:
        """Yield logits and labels, from cached image features if inference allows it."""
        yield from self.cached_features.predictions(loader) or super().predictions(loader)

    @contextmanager
    def cached_text_features(self) -> Iterator[None]:
        """Disable gradients within this context; zero-shot text features never change anyway."""
        with torch.no_grad(), autocast(self.clip_precision, self.device):
            yield

    def class_weights(self) -> Float[Tensor, "classes embed"]:
        """Return the normalised text features of the templates.

        Raises:
            UserError: a subclass overrides inference or `classify`.
        """
        if self.features != "pooled" or not self.standard_classify:
            raise no_class_weights(self.cfg, self.no_matrix)
        return self.text_features

    def check_train(self) -> None:
        """Check the evaluation only, since zero-shot CLIP needs no training images.

        Raises:
            UserError: see `check_evaluation`.
        """
        self.check_evaluation()

    def train(self, start_epoch: int | None = None, max_epoch: int | None = None) -> None:
        """Evaluate; nothing is trained."""
        self.evaluate()

    def result_entries(self) -> dict[str, Any]:
        """Return further entries for results.json."""
        return {
            "weights_sha256": self.loaded_clip.sha256,
            "clip": self.loaded_clip.facts,
            "train_views": self.cfg.INPUT.TRAIN_VIEWS,
        }


@TRAINER_REGISTRY.register()
class ZeroshotCLIP2(ZeroshotCLIP):
    """Averages the text features of several templates, including the dataset's."""

    prompts = "several hand-written templates"

    def select_templates(self, templates: Sequence[str]) -> Sequence[str]:
        """Return the 7 templates that CLIP's authors selected on ImageNet and the dataset's own."""
        others = [template for template in templates if template not in SELECTED_TEMPLATES]
        return [*SELECTED_TEMPLATES, *others]
