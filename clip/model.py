"""CLIP itself: an image tower, a text tower and a temperature, with OpenAI's names throughout.

CLIP (Radford et al., ICML 2021). A state dict of OpenAI's loads by name, and code that touches
`clip_model.transformer`, `token_embedding`, `visual`, `dtype`, ... finds them where it expects.
"""

import difflib
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from .config import (
    ARCHITECTURES,
    CLIPConfig,
    canonical_name,
    check_finite,
    config_from_state_dict,
    is_weight,
    with_overrides,
)
from .errors import WeightsError
from .initialisation import initialise
from .resnet import ModifiedResNet
from .transformer import Attention, LayerNorm, Transformer
from .vision_transformer import VisionTransformer


class CLIP(nn.Module):
    """Both towers. Built with OpenAI's random initialisation; `build_model` brings weights."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.context_length = config.context_length
        self.vocab_size = config.vocab_size
        self.visual = _image_tower(config)
        self.transformer = Transformer(
            config.transformer_width,
            config.transformer_layers,
            config.text_heads,
            causal=True,
            activation=config.activation,
        )
        width = config.transformer_width
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, width))
        self.ln_final = LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.empty(()))
        initialise(self)

    @property
    def dtype(self) -> torch.dtype:
        """The precision that the towers compute in: that of the first convolution."""
        return self.visual.conv1.weight.dtype

    def encode_image(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch embed"]:
        """Image features f, not normalised.

        Raises:
            ImageSizeError: the images are not `visual.input_resolution` pixels wide and high.
        """
        return self.visual(image.to(self.dtype))

    def encode_image_local(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch tokens embed"]:
        """Global (first) and local image features, (B, M, E), not normalised.

        What PLOT (Chen et al., ICLR 2023) matches prompts with: for a ModifiedResNet the attention
        pooling's output at every position, for a vision transformer the patch tokens.
        """
        return self.visual.forward_local(image.to(self.dtype))

    def encode_text(self, text: Int[Tensor, "batch length"]) -> Float[Tensor, "batch embed"]:
        """Text features g, read at EOS (the highest token id of a row), not normalised."""
        eos = text.argmax(dim=-1)
        # The tower is causal and a feature is read at EOS: nothing behind the last one matters.
        text = text[:, : int(eos.max()) + 1]
        x = self.token_embedding(text).to(self.dtype)
        x = x + self.positional_embedding[: text.shape[1]].to(self.dtype)
        x = self.transformer(x.transpose(0, 1))
        at_eos = x[eos, torch.arange(len(text), device=x.device)]
        return self.ln_final(at_eos) @ self.text_projection

    def forward(
        self, image: Float[Tensor, "images 3 height width"], text: Int[Tensor, "texts length"]
    ) -> tuple[Float[Tensor, "images texts"], Float[Tensor, "texts images"]]:
        """Cosine similarities times the temperature: logits per image and logits per text."""
        image_features = functional.normalize(self.encode_image(image), dim=-1)
        text_features = functional.normalize(self.encode_text(text), dim=-1)
        logits = self.logit_scale.exp() * image_features @ text_features.t()
        return logits, logits.t()


def _image_tower(config: CLIPConfig) -> ModifiedResNet | VisionTransformer:
    layers = config.vision_layers
    if not isinstance(layers, int):
        return ModifiedResNet(
            layers,
            config.embed_dim,
            config.image_heads,
            config.image_resolution,
            config.vision_width,
        )
    assert config.vision_patch_size is not None
    return VisionTransformer(
        config.image_resolution,
        config.vision_patch_size,
        config.vision_width,
        layers,
        config.image_heads,
        config.embed_dim,
        config.activation,
    )


def convert_weights(model: nn.Module, dtype: torch.dtype = torch.float16) -> None:
    """Cast what multiplies activations to a lower precision, in place, as OpenAI does.

    Norms, embeddings and the temperature stay as they are; they compute in fp32 or are cast when
    they are used.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | Attention):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
        for name in ("text_projection", "proj"):
            value = getattr(module, name, None)
            if isinstance(value, nn.Parameter):
                value.data = value.data.to(dtype)


def build_model(
    state_dict: Mapping[str, Any],
    *,
    transformer_heads: int | None = None,
    vision_heads: int | None = None,
    context_length: int | None = None,
    activation: str | None = None,
    dtype: torch.dtype | None = None,
) -> CLIP:
    """Build the CLIP that a state dict with OpenAI's key names describes, in evaluation mode.

    Args:
        state_dict: a whole CLIP; it is neither changed nor kept.
        transformer_heads: heads of the text tower where they are not 64 wide.
        vision_heads: heads of the image tower where they are not 64 wide.
        context_length: use only so many of the text tower's positions.
        activation: `quick_gelu` (None means this one) or `gelu`.
        dtype: fp32, or fp16 or bf16 as `convert_weights` casts. None: that of the first
            convolution. OpenAI's files then give fp16, as OpenAI's function of this name does.

    Raises:
        WeightsError: the state dict is not CLIP's, or an argument does not fit it.
    """
    tensors = {key: value for key, value in state_dict.items() if is_weight(key)}
    config = config_from_state_dict(
        tensors,
        transformer_heads=transformer_heads,
        vision_heads=vision_heads,
        context_length=context_length,
        activation=activation,
    )
    positions = tensors["positional_embedding"][: config.context_length]
    tensors["positional_embedding"] = positions
    with torch.device("meta"):  # no time is spent on random weights that are replaced at once
        model = CLIP(config)
    _check_tensors(model, tensors)
    for key, value in tensors.items():
        check_finite(key, value)
    model.load_state_dict({key: _copy(value) for key, value in tensors.items()}, assign=True)
    dtype = dtype or tensors["visual.conv1.weight"].dtype
    if dtype in (torch.float16, torch.bfloat16):
        convert_weights(model, dtype)
    return model.requires_grad_(True).eval()


def _copy(value: Tensor) -> Tensor:
    dtype = torch.float32 if value.is_floating_point() else value.dtype
    return value.detach().to(dtype, copy=True).contiguous()


def _check_tensors(model: CLIP, tensors: Mapping[str, Tensor]) -> None:
    expected = model.state_dict()
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    missing = [key for key in expected if key not in tensors and key not in counters]
    unknown = [key for key in tensors if key not in expected]
    for keys, what in ((missing, "lacks"), (unknown, "has the unknown entry")):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise WeightsError(
                f"This state dict is not that of a CLIP: it {what} {keys[0]!r}{more}."
            )
    for key, value in tensors.items():
        if value.shape != expected[key].shape:
            raise WeightsError(
                f"This state dict is not that of a CLIP: {key!r} has shape {tuple(value.shape)}, "
                f"but the other entries ask for {tuple(expected[key].shape)}."
            )
        if value.is_floating_point() != expected[key].is_floating_point():
            raise WeightsError(
                f"This state dict is not that of a CLIP: {key!r} holds {value.dtype}, but "
                f"{expected[key].dtype} is needed."
            )


def build_random(name: str, seed: int = 0, **overrides: Any) -> CLIP:
    """One of OpenAI's architectures with random weights, in evaluation mode and without a file.

    Args:
        name: such as `RN50` or `ViT-B/16`.
        seed: the same seed gives the same weights; the global generator is left as it was.
        **overrides: other values for fields of `CLIPConfig`.

    Raises:
        WeightsError: no architecture has this name, or an override does not fit it.
    """
    canonical = canonical_name(name)
    if canonical is None:
        near = difflib.get_close_matches(name, ARCHITECTURES, n=1, cutoff=0.0)
        raise WeightsError(
            f"{name!r} is no architecture; did you mean {near[0]!r}? "
            f"Choose one of {', '.join(ARCHITECTURES)}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIP(with_overrides(ARCHITECTURES[canonical], **overrides)).eval()
