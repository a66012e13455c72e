"""A frozen CLIP whose class weights come from soft prompts.

images (B, 3, H, W) -> image features f (B, E); ctx (G, L, D) -> text features g (G, C, E);
logits (G, B, C) = exp(logit_scale) * f @ g^T.  G is the number of prompts evaluated in one call.
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

from .frozen_encoder import encode_frozen


class PromptedCLIP(nn.Module):
    """CoOp's CustomCLIP: image encoder, prompt learner and text encoder with a group dimension.

    Other code relies on these attributes. If a subclass overrides a method that `capabilities`
    lists for an attribute, the attribute is lowered, unless the subclass declares it.

    Attributes:
        frozen_features: `image_features` returns frozen features, and `forward` classifies them.
        standard_classify: `classify` returns the `logits` of the learned prompts.
        conditional: text features depend on the image (CoCoOp).
        linear: logits are exp(logit_scale) * f @ W^T, W the text features (C, E).
        term_name, term_weight: name and weight of the term in `training_outputs`.
    """

    frozen_features = True
    standard_classify = True
    conditional = False
    linear = True
    term_name = ""
    term_weight: Any = None  # None without a term
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
        prompt_learner: Any,
        position: str = "end",
        text_encoder: nn.Module | None = None,
    ) -> None:
        """Combine the frozen encoders with the prompts.

        Args:
            clip_model: frozen CLIP.
            classnames: C names.
            prompt_learner: a `PromptLearner` or `TowerPrompts`; no other parameter is trained.
            position: class token position: `end`, `middle` or `front`.
            text_encoder: maps groups of prompts to text features; None for `SoftPromptEncoder`.
        """
        super().__init__()
        self.clip_model = clip_model
        self.prompt_learner = prompt_learner
        self.text_encoder: Any = text_encoder or SoftPromptEncoder(
            clip_model, classnames, prompt_learner.length, position
        )
        self._cached_text: Tensor | None = None

    def image_features(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch embed"]:
        """Return normalised image features f, without gradient."""
        return encode_frozen(self.clip_model.encode_image, images)

    def text_features(
        self, ctx: Float[Tensor, "groups *sets length width"]
    ) -> Float[Tensor, "groups classes embed"]:
        """Return normalised text features g of every group's prompts."""
        return functional.normalize(self.text_encoder(self.encoder_groups(ctx)), dim=-1)

    def encoder_groups(
        self, ctx: Float[Tensor, "groups *sets length width"]
    ) -> Float[Tensor, "prompts *classes length width"]:
        """Return prompts as the groups that the text encoder processes."""
        return ctx

    def match(
        self,
        image_features: Float[Tensor, "*groups batch embed"],
        text_features: Float[Tensor, "groups classes embed"],
    ) -> Float[Tensor, "groups batch classes"]:
        """Return logits: the scaled cosine similarities with the same or each group's images."""
        scale = self.clip_model.logit_scale.exp()
        return scale * image_features @ text_features.mT

    def logits(
        self,
        image_features: Float[Tensor, "*images embed"],
        ctx: Float[Tensor, "groups *sets length width"],
    ) -> Float[Tensor, "groups batch classes"]:
        """Return the logits of the images under every group's prompts."""
        return self.match(image_features, self.text_features(ctx))

    def training_outputs(
        self,
        image_features: Float[Tensor, "*images embed"],
        ctx: Float[Tensor, "groups *sets length width"],
    ) -> tuple[Float[Tensor, "groups batch classes"], Float[Tensor, " groups"] | None]:
        """Return the logits, and a further term of each group's loss, without its weight.

        Subclasses may override it; its images are those of all groups or of each.
        """
        return self.logits(image_features, ctx), None

    @contextmanager
    def cached_text_features(self) -> Iterator[None]:
        """Compute the text features once for this context, in which the prompts must not change."""
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
        """Return the logits of the images under the learned prompts."""
        return self.classify(self.image_features(images))

    def classify(
        self, image_features: Float[Tensor, "batch *tokens embed"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits of image features under the learned prompts."""
        if self._cached_text is not None:
            return self.match(image_features, self._cached_text)[0]
        return self.logits(image_features, self.prompt_learner())[0]
