"""A frozen CLIP whose classifier is written by soft prompts.

images (B, 3, H, W) -> image features (B, E); ctx (G, L, D) -> text features (G, C, E); both give
logits (G, B, C) = exp(logit_scale) * f @ g^T.  G counts the prompts that are evaluated together.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from clip.model import CLIP
from clip.text_encoding import SoftPromptEncoder
from dassl.engine.capabilities import Capability, lower_capabilities

from .frozen_tower import encode_frozen
from .prompt_learner import PromptLearner


class PromptedCLIP(nn.Module):
    """CoOp's CustomCLIP: image tower, prompt learner and text encoder with a group dimension.

    What others count on is declared in these attributes. A subclass whose body defines one of the
    methods in `capabilities` has the attribute lowered, unless it declares it, too.

    Attributes:
        frozen_features: `image_features` gives the frozen tower's features and nothing else, and
            `forward` classifies them.
        standard_classify: `classify` gives the `logits` of the learned prompts.
        conditional: text features depend on the image (CoCoOp).
        linear: logits are exp(logit_scale) * f @ W^T, W the text features (C, E).
    """

    frozen_features = True
    standard_classify = True
    conditional = False
    linear = True
    capabilities: ClassVar[dict[str, Capability]] = {
        "frozen_features": Capability(frozenset({"image_features", "forward"})),
        "standard_classify": Capability(frozenset({"classify"})),
        "conditional": Capability(frozenset({"logits"}), lowered=True),
        "linear": Capability(frozenset({"classify", "logits", "match"})),
    }

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        lower_capabilities(cls, cls.capabilities)

    def __init__(
        self,
        clip_model: CLIP,
        classnames: Sequence[str],
        prompt_learner: PromptLearner,
        position: str = "end",
    ) -> None:
        """Compose the frozen towers with the prompts.

        Args:
            clip_model: frozen CLIP.
            classnames: C names.
            prompt_learner: holds `ctx`, the only parameters that learn.
            position: where the class name stands: `end`, `middle` or `front`.
        """
        super().__init__()
        self.clip_model = clip_model
        self.prompt_learner = prompt_learner
        self.text_encoder = SoftPromptEncoder(
            clip_model, classnames, prompt_learner.length, position
        )
        self._cached_text: Tensor | None = None

    def image_features(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch embed"]:
        """Normalised image features f; no gradient, since the tower is frozen."""
        return encode_frozen(self.clip_model.encode_image, images)

    def text_features(
        self, ctx: Float[Tensor, "groups *sets length width"]
    ) -> Float[Tensor, "groups classes embed"]:
        """Normalised text features g of every group's prompts."""
        return functional.normalize(self.text_encoder(ctx), dim=-1)

    def match(
        self,
        image_features: Float[Tensor, "batch embed"],
        text_features: Float[Tensor, "groups classes embed"],
    ) -> Float[Tensor, "groups batch classes"]:
        """Scaled cosine similarities."""
        scale = self.clip_model.logit_scale.exp()
        return scale * image_features @ text_features.mT

    def logits(
        self,
        image_features: Float[Tensor, "batch *tokens embed"],
        ctx: Float[Tensor, "groups *sets length width"],
    ) -> Float[Tensor, "groups batch classes"]:
        """Logits of the images under every group's prompts."""
        return self.match(image_features, self.text_features(ctx))

    @contextmanager
    def cached_text_features(self) -> Iterator[None]:
        """Within this context the prompts do not change, and their text is encoded once."""
        if not self.conditional:
            with torch.no_grad():
                self._cached_text = self.text_features(self.prompt_learner())
        try:
            yield
        finally:
            self._cached_text = None

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Logits of the images under the learned prompts."""
        return self.classify(self.image_features(images))

    def classify(
        self, image_features: Float[Tensor, "batch *tokens embed"]
    ) -> Float[Tensor, "batch classes"]:
        """Logits of images whose features are known, under the learned prompts."""
        if self._cached_text is not None:
            return self.match(image_features, self._cached_text)[0]
        return self.logits(image_features, self.prompt_learner())[0]
