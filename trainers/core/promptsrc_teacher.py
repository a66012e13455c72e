"""CLIP without prompts as the teacher of PromptSRC (Khattak et al., ICCV 2023), section 3.1."""

import json
from collections.abc import Sequence
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from clip import tokenize
from clip.model import CLIP
from clip.prompt_layout import clean_classname
from clip.simple_tokenizer import tokenizer
from dassl.utils import cached

from .features.evaluation import CachedFeatures
from .frozen_encoder import encode_frozen

TEMPLATES_FILE = Path(__file__).parent / "promptsrc_templates.json"
PROMPTS_AT_ONCE = 256


def read_templates() -> list[str]:
    """Return the 60 templates of the textual diversity, from CLIP's for ImageNet."""
    return list(json.loads(TEMPLATES_FILE.read_text(encoding="utf-8"))["templates"])


@torch.no_grad()
def template_features(
    clip_model: CLIP, classnames: Sequence[str], template: str
) -> Float[Tensor, "classes embed"]:
    """Return the text features of a template with each name, in fp32 and not normalised.

    Raises:
        PromptError: a prompt is too long for the text encoder.
    """
    tokens = _tokens(classnames, template).to(clip_model.token_embedding.weight.device)
    parts = tokens.split(PROMPTS_AT_ONCE)
    return torch.cat([clip_model.encode_text(part).float() for part in parts])


def _tokens(classnames: Sequence[str], template: str) -> Int[Tensor, "classes length"]:
    return tokenize([template.format(clean_classname(name)) for name in classnames])


class Teacher:
    """The frozen features of a trainer's CLIP; a `FeatureEncoder` of cached augmentations.

    Args:
        trainer: with a loaded CLIP and its dataset.
    """

    def __init__(self, trainer: Any) -> None:
        self.cfg, self.device, self.loaded_clip = trainer.cfg, trainer.device, trainer.loaded_clip
        self.clip_precision: str = trainer.clip_precision
        self.max_epoch: int = trainer.max_epoch
        self.classnames: list[str] = list(trainer.dm.dataset.classnames)
        self.cached_features = CachedFeatures(self)

    def check_names(self) -> None:
        """Raise PromptError for a class name that is too long for a template."""
        longest = max(read_templates(), key=lambda one: len(tokenizer().encode(one)))
        _tokens(self.classnames, longest)

    def feature_kind(self) -> str:
        """Return the kind of the features."""
        return "pooled"

    def image_features(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch embed"]:
        """Return normalised image features without prompts and without gradient."""
        return encode_frozen(self.loaded_clip.model.encode_image, images)

    @cached_property
    def text_features(self) -> Float[Tensor, "classes embed"]:
        """The normalised mean over the templates, computed once for all runs of a process."""
        loaded = self.loaded_clip
        key = (
            *("teacher", loaded.sha256 or loaded.source, json.dumps(loaded.values)),
            *(self.clip_precision, str(self.device), tuple(self.classnames)),
        )
        return cached("features", key, self._encode_text)

    def _encode_text(self) -> Float[Tensor, "classes embed"]:
        print(f"Encoding {len(self.classnames):,} classes in the teacher's templates")
        with torch.autocast(self.device.type, enabled=False):
            features = (
                template_features(self.loaded_clip.model, self.classnames, template)
                for template in read_templates()
            )
            mean = reduce(torch.add, features)
        return functional.normalize(mean, dim=-1)
