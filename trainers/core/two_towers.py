"""A frozen CLIP with soft prompts in both encoders, and the learner of these prompts.

Depth d prompts the layers 0 ... d-1 of an encoder. T_l (n, D_t) enters layer l of the text encoder
at positions 1 ... n; V_l (n, D_v) enters layer l of the vision transformer behind the patches:

    logits (G, B, C) = exp(logit_scale) * f(V) @ g(T)^T.

MaPLe (Khattak et al., CVPR 2023) couples them by one linear map per layer: V_l = F_l(T_l).
"""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from clip.deep_prompts import DeepPromptEncoder
from clip.model import CLIP
from clip.prompt_layout import clean_classname
from clip.prompted_vision import PromptedImageEncoder
from clip.simple_tokenizer import tokenizer
from clip.text_encoding import SoftPromptEncoder
from safeio.errors import UserError

from .frozen_encoder import encode_frozen
from .prompt_learner import INIT_STD, embed_words
from .prompted_clip import PromptedCLIP

MOST_FROM_WORDS = 4  # with more vectors, MaPLe's and PromptSRC's code ignores the initial words
FIXED_WORDS = "a photo of a"  # VPT's prompt, for every dataset
TEXT, VISION = "text", "vision"


class Shape(NamedTuple):
    """Prompts of one encoder: `length` vectors in each of its first `depth` layers."""

    length: int = 0
    depth: int = 0


def split_words(ctx_init: str, length: int) -> tuple[str, str]:
    """Split initial words into those that T_0 starts from and those that stay fixed behind it.

    "a photo of a" gives ("a photo", "of a") for 2 vectors; ("", "") is a random start.

    Raises:
        UserError: there are fewer words than vectors, or a word is split.
    """
    if not ctx_init or length > MOST_FROM_WORDS:
        return "", ""
    encode, decode = tokenizer().encode, tokenizer().decode
    ids = encode(clean_classname(ctx_init))
    if len(ids) < length:
        raise UserError(
            f"CTX_INIT {ctx_init!r} has {len(ids)} tokens for {length} context vectors; give at "
            "least as many words as vectors, or none for a random start"
        )
    learned, fixed = (decode(part).strip() for part in (ids[:length], ids[length:]))
    if [*encode(learned), *encode(fixed)] != ids:
        raise UserError(
            f"{length} context vectors end within a word of CTX_INIT {ctx_init!r}; choose other "
            "words or another number of vectors"
        )
    return learned, fixed


class TowerPrompts(nn.Module):
    """The learned tensors: text.l (n, D_t), vision.l (n, D_v), coupling.l (weight, bias).

    Attributes:
        coupled: whether vision prompts are F_l(T_l) instead of learned.
    """

    def __init__(
        self,
        clip_model: CLIP,
        text: Shape,
        vision: Shape,
        words: str = "",
        coupled: bool = False,
    ) -> None:
        """Draw the prompts on the CPU, so that every device starts from the same.

        Args:
            clip_model: provides the widths and the token embeddings.
            text: of the text prompts.
            vision: of the vision prompts.
            words: what T_0 starts from; "" for N(0, 0.02^2), as all other prompts.
            coupled: learn the couplings F_l instead of the vision prompts.
        """
        super().__init__()
        device = clip_model.token_embedding.weight.device
        width, channels = clip_model.transformer.width, clip_model.config.vision_width
        self.coupled = coupled
        self.text = _draw(text, width)
        if words:
            self.text[0] = nn.Parameter(embed_words(clip_model, words).cpu())
        self.vision = _draw(Shape() if coupled else vision, channels)
        maps = [nn.Linear(width, channels) for _ in range(min(2, text.depth) if coupled else 0)]
        # MaPLe's maps behind the first are copies of one.
        maps += [copy.deepcopy(maps[1]) for _ in range(text.depth - 2 if coupled else 0)]
        self.coupling = nn.ModuleList(maps)
        self._width, self._channels = width, channels
        self.to(device)

    def text_prompts(self) -> Float[Tensor, "depth length width"]:
        """Return T_0 ... T_{d-1}."""
        return _stack(self.text, self._width)

    def vision_prompts(self) -> Float[Tensor, "depth length channels"]:
        """Return V_0 ... V_{d-1}; coupled ones are computed from the text prompts."""
        if self.coupled:
            return self.couple(self.text_prompts())
        return _stack(self.vision, self._channels)

    def couple(
        self, text: Float[Tensor, "*groups depth length width"]
    ) -> Float[Tensor, "*groups depth length channels"]:
        """Return V_l = F_l(T_l) = T_l W_l^T + b_l."""
        pairs = zip(self.coupling, text.unbind(-3), strict=True)
        return torch.stack([coupling(vectors) for coupling, vectors in pairs], dim=-3)

    def forward(self) -> Float[Tensor, "1 depth length width"]:
        """Return the text prompts as one group."""
        return self.text_prompts().unsqueeze(0)

    def learned(self) -> dict[str, Float[Tensor, "depth length width"]]:
        """Return the learned vectors by encoder, those on which Nemesis acts."""
        found = {TEXT: self.text_prompts()} if len(self.text) else {}
        return {**found, VISION: self.vision_prompts()} if len(self.vision) else found

    @property
    def ctx(self) -> Float[Tensor, "depth length width"]:
        """The text prompts.

        Raises:
            UserError: there are none.
        """
        if not len(self.text):
            raise UserError("This method learns vision prompts alone, so it has no context vectors")
        return self.text_prompts()

    @property
    def length(self) -> int:
        """Number of positions: n_t + n_v, without coupled ones."""
        return sum(prompts.shape[-2] for prompts in self.learned().values())


def _draw(shape: Shape, width: int) -> nn.ParameterList:
    draw = (INIT_STD * torch.randn(shape.length, width) for _ in range(shape.depth))
    return nn.ParameterList([nn.Parameter(one) for one in draw])


def _stack(prompts: nn.ParameterList, width: int) -> Float[Tensor, "depth length width"]:
    if not len(prompts):
        return torch.empty(0, 0, width)
    return torch.stack(list(prompts))


class FixedText(nn.Module):
    """Text features of fixed words and the class names, in place of an encoder of prompts."""

    memory_limit = 0

    def __init__(self, clip_model: CLIP, classnames: Sequence[str], words: str) -> None:
        """Encode the prompts once; a prompt that is too long raises PromptError."""
        super().__init__()
        vectors = embed_words(clip_model, words).unsqueeze(0)
        with torch.no_grad():
            self.features = SoftPromptEncoder(clip_model, classnames, vectors.shape[1])(vectors)

    def forward(
        self, ctx: Float[Tensor, "groups *prompts width"]
    ) -> Float[Tensor, "groups classes embed"]:
        """Return the same features for every group."""
        return self.features.expand(len(ctx), -1, -1)


class TwoTowerCLIP(PromptedCLIP):
    """A frozen CLIP with prompts in one or both encoders."""

    frozen_features = False
    prompt_learner: TowerPrompts

    def __init__(
        self,
        clip_model: CLIP,
        classnames: Sequence[str],
        learner: TowerPrompts,
        words_behind: str = "",
    ) -> None:
        """Combine the frozen encoders with the prompts.

        Args:
            clip_model: frozen CLIP with a vision transformer.
            classnames: C names.
            learner: the prompts.
            words_behind: fixed words between T_l and the name.
        """
        text_encoder = (
            DeepPromptEncoder(clip_model, classnames, len(learner.text[0]), words_behind)
            if len(learner.text)
            else FixedText(clip_model, classnames, FIXED_WORDS)
        )
        super().__init__(clip_model, classnames, learner, text_encoder=text_encoder)
        self.image_encoder = PromptedImageEncoder(clip_model)
        self.frozen_features = not learner.coupled and not len(learner.vision)

    def image_features(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch embed"]:
        """Return normalised image features, with gradient if there are vision prompts."""
        if self.frozen_features:
            return encode_frozen(self.clip_model.encode_image, images)
        return self.prompted_features(images, self.prompt_learner.vision_prompts())

    def prompted_features(
        self,
        images: Float[Tensor, "batch 3 height width"],
        prompts: Float[Tensor, "*groups depth length channels"],
    ) -> Float[Tensor, "*groups batch embed"]:
        """Return normalised image features under vision prompts."""
        return functional.normalize(self.image_encoder(images, prompts), dim=-1)

    def scale_bearing(self, tower: str) -> list[int]:
        """Return the layers of an encoder whose prompts' norms affect the logits.

        A layer norm removes the scale of V_0 (ln_pre) and of each prompt that the next layer
        replaces or that enters the last layer: it acts through keys and values of ln_1 alone. To
        T_0 the positional embedding is added before any norm. The last prompts stay in the residual
        stream if further layers follow. A coupled T_l also balances F_l's bias.
        """
        visual = tower == VISION
        encoder: Any = self.clip_model.visual if visual else self.clip_model
        depth = len(self.prompt_learner.vision if visual else self.prompt_learner.text)
        if self.prompt_learner.coupled:
            return list(range(depth))
        stays = depth < len(encoder.transformer.blocks)
        last = [depth - 1] if stays and (depth > 1 or not visual) else []
        return last if visual else sorted({0, *last})
