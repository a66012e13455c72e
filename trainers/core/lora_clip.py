"""A frozen CLIP with low-rank adapters that classifies with a hand-written template.

images (B, 3, H, W) -> f (B, E); class names in the template -> g (C, E);
logits (B, C) = exp(logit_scale) * f @ g^T. A tower without an active adapter runs frozen.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from clip.model import CLIP
from clip.prompt_layout import clean_classname
from clip.simple_tokenizer import END, START, tokenizer
from clip.text_encoding import SoftPromptEncoder

from .frozen_encoder import encode_frozen
from .lora import Adapters, Deltas, attach, merge
from .lora_settings import TEXT, VISION

TEMPLATE = "a photo of a {}."


class TokenPromptEncoder(SoftPromptEncoder):
    """Encoder of fixed texts: nothing after EOS is computed, equal beginnings are computed once.

    Dropout in the text encoder draws once for all texts that share a state.
    """

    def __init__(self, clip_model: CLIP, texts: Sequence[str]) -> None:
        nn.Module.__init__(self)
        self.clip_model, self.length = clip_model, 0
        start, end = (tokenizer().encoder[token] for token in (START, END))
        self.prompts = [([start, *tokenizer().encode(text), end], []) for text in texts]
        self._check_lengths(texts)
        self._ranges = {}

    def learns(self, ctx: Tensor) -> bool:
        """Return whether a parameter of the text encoder has a gradient."""
        return any(one.requires_grad for one in self.clip_model.transformer.parameters())

    def encode(self) -> Float[Tensor, "classes embed"]:
        """Return the normalised features of the texts."""
        weight = self.clip_model.token_embedding.weight
        without_context = torch.empty(1, 0, weight.shape[1], device=weight.device)
        return functional.normalize(self(without_context)[0], dim=-1)


class LoRACLIP(nn.Module):
    """CLIP with adapters.

    Attributes:
        frozen: the CLIP without adapters, which is not changed.
        adapted: the same tensors with the adapters in the attention.
    """

    def __init__(self, clip_model: CLIP, adapters: Adapters, classnames: Sequence[str]) -> None:
        super().__init__()
        self.frozen, self.adapters = clip_model, adapters
        self.adapted = attach(clip_model, adapters)
        texts = [TEMPLATE.format(clean_classname(name)) for name in classnames]
        self.text_encoder = TokenPromptEncoder(self.adapted, texts)
        self.text_encoder.draws = adapters.settings.dropout > 0
        self._merged: CLIP | None = None
        self._merged_text: Tensor | None = None
        self._frozen_text: Tensor | None = None

    def image_features(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch embed"]:
        """Return normalised image features, with a gradient only for active adapters."""
        if self._merged is not None:
            return encode_frozen(self._merged.encode_image, images)
        if not self.adapters.learns(VISION):
            return encode_frozen(self.frozen.encode_image, images)
        return functional.normalize(self.adapted.encode_image(images), dim=-1)

    def text_features(self) -> Float[Tensor, "classes embed"]:
        """Return the normalised text features of all classes."""
        if self._merged_text is not None:
            return self._merged_text
        if self.adapters.learns(TEXT):
            return self.text_encoder.encode()
        if self._frozen_text is None:
            self._frozen_text = self.text_features_of(self.frozen)
        return self._frozen_text

    @torch.no_grad()
    def text_features_of(self, clip_model: CLIP) -> Float[Tensor, "classes embed"]:
        """Return the normalised text features under another text encoder of the same embedding."""
        encoder, adapted = self.text_encoder, self.adapted
        encoder.clip_model = clip_model
        try:
            return encoder.encode()
        finally:
            encoder.clip_model = adapted

    @contextmanager
    def merged(self, deltas: Deltas | None = None) -> Iterator[CLIP]:
        """Use W + delta as weights within this context, by default those of all adapters.

        Yields:
            The merged CLIP.
        """
        self._merged = merge(self.frozen, self.adapters.deltas() if deltas is None else deltas)
        try:
            self._merged_text = self.text_features_of(self._merged)
            yield self._merged
        finally:
            self._merged = self._merged_text = None

    def match(self, image_features: Float[Tensor, "batch embed"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of image features."""
        return self.frozen.logit_scale.exp() * image_features @ self.text_features().mT

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits of images."""
        return self.match(self.image_features(images))
