"""Zero-shot CLIP: the lower bar that tuned prompts have to pass.

Learning Transferable Visual Models From Natural Language Supervision (Radford et al., ICML 2021):
class weights are the text features of a hand-written template, such as "a photo of a {}.", or the
mean of several templates' features (section 3.1.4).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from clip import tokenize
from clip.prompt_layout import clean_classname
from clip.weights import LoadedCLIP
from dassl.config import CfgNode, declare_config
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.engine.capabilities import Capability
from dassl.utils import choose_device
from safeio.errors import UserError

from .core.features.evaluation import (
    CLASSIFY,
    INFERENCE,
    NO_MATRIX,
    CachedFeatures,
    no_class_weights,
)
from .core.frozen_clip import load_frozen_clip
from .core.frozen_tower import encode_frozen
from .core.precision import autocast, check_precision

DEFAULT_TEMPLATES = ("a photo of a {}.",)

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
    """Classifies with the dataset's hand-written template; nothing is trained.

    Attributes:
        features: see `features.evaluation`; lowered by an inference of a subclass's own.
        standard_classify: logits are exp(logit_scale) * f @ text_features^T.
    """

    learns = False
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
    def tower_precision(self) -> str:
        """The towers' precision."""
        return self.cfg.TRAINER.ZSCLIP.PREC

    def check_cfg(self, cfg: CfgNode) -> None:
        """Refuse an impossible precision before anything is loaded."""
        check_precision(cfg.TRAINER.ZSCLIP.PREC, choose_device(cfg))

    def build_model(self) -> None:
        """Encode the class names in their template."""
        self.loaded_clip = load_frozen_clip(self.cfg, self.device, self.tower_precision)
        self.cached_features = CachedFeatures(self)
        dataset = self.dm.dataset
        own = getattr(dataset, "templates", DEFAULT_TEMPLATES)
        templates = tuple(self.cfg.DATASET.TEMPLATES) or own
        prompts = [self._encode(template, dataset.classnames) for template in self.use(templates)]
        self.text_features = functional.normalize(torch.stack(prompts).mean(0), dim=-1)

    def use(self, templates: Sequence[str]) -> Sequence[str]:
        """Hook: the templates to average over, given the dataset's own."""
        return templates[:1]

    @torch.no_grad()
    def _encode(self, template: str, classnames: list[str]) -> Float[Tensor, "classes embed"]:
        if "{}" not in template:
            raise UserError(f'DATASET.TEMPLATES: "{template}" has no {{}} for the class name')
        prompts = [template.replace("{}", clean_classname(name)) for name in classnames]
        print(f"Prompts: {prompts[:5]} ...")
        tokens = tokenize(prompts).to(self.device)
        return functional.normalize(self.loaded_clip.model.encode_text(tokens), dim=-1)

    def model_inference(
        self,
        input: Float[Tensor, "batch 3 height width"],
    ) -> Float[Tensor, "batch classes"]:
        """Scaled cosine similarities to the class weights."""
        with autocast(self.tower_precision, self.device):
            return self.classify(self.image_features(input))

    def image_features(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch embed"]:
        """Normalised image features."""
        return encode_frozen(self.loaded_clip.model.encode_image, images)

    def classify(
        self, image_features: Float[Tensor, "batch embed"]
    ) -> Float[Tensor, "batch classes"]:
        """Scaled cosine similarities of known features to the class weights."""
        return self.loaded_clip.model.logit_scale.exp() * image_features @ self.text_features.T

    def feature_kind(self) -> str | None:
        """Pooled features, unless a subclass infers otherwise."""
        return self.features

    def predictions(
        self, loader: Any
    ) -> Iterator[tuple[Float[Tensor, "batch classes"], Int[Tensor, " batch"]]]:
        """Scores and labels, from cached image features where inference is made of them."""
        yield from self.cached_features.predictions(loader) or super().predictions(loader)

    @contextmanager
    def cached_text_features(self) -> Iterator[None]:
        """Within this context nothing learns; the text features are the same in any."""
        with torch.no_grad(), autocast(self.tower_precision, self.device):
            yield

    def class_weights(self) -> Float[Tensor, "classes embed"]:
        """The normalised text features of the templates.

        Raises:
            UserError: a subclass classifies in a way of its own.
        """
        if self.features != "pooled" or not self.standard_classify:
            raise no_class_weights(self.cfg, NO_MATRIX)
        return self.text_features

    def check_train(self) -> None:
        """It needs no training images.

        Raises:
            UserError: see `check_evaluation`.
        """
        self.check_evaluation()

    def train(self, start_epoch: int | None = None, max_epoch: int | None = None) -> None:
        """Nothing to train: test."""
        self.evaluate()

    def result_entries(self) -> dict[str, Any]:
        """What zero-shot adds to results.json."""
        return {
            "weights_sha256": self.loaded_clip.sha256,
            "clip": self.loaded_clip.facts,
            "train_views": self.cfg.INPUT.TRAIN_VIEWS,
        }


@TRAINER_REGISTRY.register()
class ZeroshotCLIP2(ZeroshotCLIP):
    """Averages the text features of several templates, the dataset's own among them."""

    def use(self, templates: Sequence[str]) -> Sequence[str]:
        """The seven templates that CLIP's authors selected on ImageNet, and the dataset's own."""
        own = [template for template in templates if template not in SELECTED_TEMPLATES]
        return [*SELECTED_TEMPLATES, *own]
