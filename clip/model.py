"""CLIP: an image encoder, a text encoder and a logit scale, with OpenAI's attribute names.

CLIP (Radford et al., ICML 2021). OpenAI's state dicts load by name, and code that uses
`clip_model.transformer`, `token_embedding`, `visual`, `dtype`, ... runs unchanged.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from .config import CLIPConfig
from .resnet import ModifiedResNet
from .transformer import LayerNorm, Transformer
from .vision_transformer import VisionTransformer

INITIAL_TEMPERATURE = 0.07


class CLIP(nn.Module):
    """Both encoders, with OpenAI's random initialisation; `build_model` loads weights."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.context_length = config.context_length
        self.vocab_size = config.vocab_size
        self.visual = _image_encoder(config)
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
        self.initialize_parameters()

    @torch.no_grad()
    def initialize_parameters(self) -> None:
        """Initialise all weights as OpenAI does (section 2.5, after GPT-2)."""
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=self.transformer.width**-0.5)
        nn.init.constant_(self.logit_scale, math.log(1 / INITIAL_TEMPERATURE))
        if isinstance(self.visual, ModifiedResNet):
            self.visual.initialize_parameters()
        self.transformer.initialize_parameters()

    @property
    def dtype(self) -> torch.dtype:
        """The precision of both encoders: that of the first convolution."""
        return self.visual.conv1.weight.dtype

    def encode_image(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch embed"]:
        """Return the image features f, not normalised.

        Raises:
            ImageSizeError: the images are not `visual.input_resolution` pixels wide and high.
        """
        return self.visual(image.to(self.dtype))

    def encode_image_local(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch tokens embed"]:
        """Return the global (first) and local image features (B, M, E), not normalised.

        PLOT (Chen et al., ICLR 2023) matches prompts with them. They are the attention pooling's
        outputs at every position of a ModifiedResNet, or the tokens of a vision transformer.
        """
        return self.visual.forward_local(image.to(self.dtype))

    def encode_text(self, text: Int[Tensor, "batch length"]) -> Float[Tensor, "batch embed"]:
        """Return the text features g at EOS (the highest token id of a row), not normalised."""
        eos = text.argmax(dim=-1)
        # The encoder is causal and features are read at EOS: no token after the last EOS counts.
        text = text[:, : int(eos.max()) + 1]
        x = self.token_embedding(text).to(self.dtype)
        x = x + self.positional_embedding[: text.shape[1]].to(self.dtype)
        x = self.transformer(x.transpose(0, 1))
        at_eos = x[eos, torch.arange(len(text), device=x.device)]
        return self.ln_final(at_eos) @ self.text_projection

    def forward(
        self, image: Float[Tensor, "images 3 height width"], text: Int[Tensor, "texts length"]
    ) -> tuple[Float[Tensor, "images texts"], Float[Tensor, "texts images"]]:
        """Return the logits per image and per text: cosine similarities times the logit scale."""
        image_features = functional.normalize(self.encode_image(image), dim=-1)
        text_features = functional.normalize(self.encode_text(text), dim=-1)
        logits = self.logit_scale.exp() * image_features @ text_features.t()
        return logits, logits.t()


def _image_encoder(config: CLIPConfig) -> ModifiedResNet | VisionTransformer:
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
