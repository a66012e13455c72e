"""Reference implementation of CLIP: the baseline of the benchmarks and the oracle of the tests.

OpenAI's published modules (Radford et al., ICML 2021) as CoOp (Zhou et al., IJCV 2022) uses them:
`nn.MultiheadAttention` with an additive causal mask, every prompt padded to the full context of 77
tokens, `ln_final` on all tokens, unfused convolutions and batch normalisations. Independent of
`clip/`, so that faults and speed-ups of `clip/` show.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from clip.clip import tokenize
from clip.config import CLIPConfig
from clip.model import CLIP
from clip.simple_tokenizer import tokenizer


def named(**layers: nn.Module) -> nn.Sequential:
    """Return the layers in order, with OpenAI's names."""
    return nn.Sequential(OrderedDict(layers))


class ReferenceQuickGELU(nn.Module):
    """x * sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation elementwise."""
        return x * torch.sigmoid(1.702 * x)


class ReferenceBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), on (length, batch, width)."""

    def __init__(self, width: int, heads: int, activation: str, mask: Tensor | None) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = named(
            c_fc=nn.Linear(width, width * 4),
            gelu=nn.GELU() if activation == "gelu" else ReferenceQuickGELU(),
            c_proj=nn.Linear(width * 4, width),
        )
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=self.mask)[0]
        return x + self.mlp(self.ln_2(x))


def transformer(
    width: int, layers: int, heads: int, activation: str, mask: Tensor | None = None
) -> nn.Sequential:
    """Return a stack of blocks on (length, batch, width)."""
    blocks = (ReferenceBlock(width, heads, activation, mask) for _ in range(layers))
    return named(resblocks=nn.Sequential(*blocks))


class ReferenceBottleneck(nn.Module):
    """A residual block whose stride is an average pooling."""

    def __init__(self, inplanes: int, planes: int, stride: int) -> None:
        super().__init__()
        outplanes = 4 * planes
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(planes, outplanes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outplanes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride > 1 or inplanes != outplanes:
            shortcut = nn.Conv2d(inplanes, outplanes, 1, bias=False), nn.BatchNorm2d(outplanes)
            self.downsample = named(
                pool=nn.AvgPool2d(stride), **dict(zip("01", shortcut, strict=True))
            )

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.avgpool(self.relu(self.bn2(self.conv2(out))))
        return self.relu(self.bn3(self.conv3(out)) + identity)


class ReferenceAttentionPool(nn.Module):
    """Attention pooling; the query is the mean of all positions, or all for local features."""

    def __init__(self, side: int, width: int, heads: int, output_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.empty(side**2 + 1, width))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, output_dim)

    def forward(self, x: Tensor, local: bool = False) -> Tensor:
        """Map (B, W, H, H) to (B, E), or to (B, 1 + H * H, E) with the pooled feature first."""
        x = x.flatten(start_dim=2).permute(2, 0, 1)
        x = torch.cat([x.mean(dim=0, keepdim=True), x], dim=0)
        x = x + self.positional_embedding[:, None, :]
        projections = (self.q_proj, self.k_proj, self.v_proj)
        pooled, _ = functional.multi_head_attention_forward(
            query=x if local else x[:1],
            key=x,
            value=x,
            embed_dim_to_check=x.shape[-1],
            num_heads=self.heads,
            in_proj_weight=None,
            in_proj_bias=torch.cat([layer.bias for layer in projections]),
            bias_k=None,
            bias_v=None,
            add_zero_attn=False,
            dropout_p=0.0,
            out_proj_weight=self.c_proj.weight,
            out_proj_bias=self.c_proj.bias,
            use_separate_proj_weight=True,
            training=False,
            need_weights=False,
            q_proj_weight=self.q_proj.weight,
            k_proj_weight=self.k_proj.weight,
            v_proj_weight=self.v_proj.weight,
        )
        return pooled.permute(1, 0, 2) if local else pooled.squeeze(0)


class ReferenceResNet(nn.Module):
    """CLIP's ModifiedResNet."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        assert not isinstance(config.vision_layers, int)
        width = config.vision_width
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.avgpool = nn.AvgPool2d(2)
        self.relu = nn.ReLU(inplace=True)
        inplanes = width
        for stage, blocks in enumerate(config.vision_layers):
            planes, stride = width * 2**stage, 1 if stage == 0 else 2
            layers = [ReferenceBottleneck(inplanes, planes, stride)]
            inplanes = 4 * planes
            layers += [ReferenceBottleneck(inplanes, planes, 1) for _ in range(1, blocks)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        side = config.image_resolution // 32
        self.attnpool = ReferenceAttentionPool(side, inplanes, config.image_heads, config.embed_dim)

    def forward(self, x: Tensor, local: bool = False) -> Tensor:
        """Map (B, 3, H, W) to (B, E), or to (B, M, E) for local features."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.avgpool(self.relu(self.bn3(self.conv3(x))))
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.attnpool(x, local)


class ReferenceVisionTransformer(nn.Module):
    """CLIP's vision transformer."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        assert isinstance(config.vision_layers, int) and config.vision_patch_size is not None
        width, patch = config.vision_width, config.vision_patch_size
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        positions = (config.image_resolution // patch) ** 2 + 1
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(positions, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = transformer(
            width, config.vision_layers, config.image_heads, config.activation
        )
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, config.embed_dim))

    def forward(self, x: Tensor, local: bool = False) -> Tensor:
        """Map (B, 3, H, W) to (B, E), or to (B, M, E) for local features."""
        x = self.conv1(x).flatten(2).permute(0, 2, 1)
        cls = self.class_embedding + torch.zeros(len(x), 1, x.shape[-1], device=x.device)
        x = self.ln_pre(torch.cat([cls, x], dim=1) + self.positional_embedding)
        x = self.transformer(x.permute(1, 0, 2)).permute(1, 0, 2)
        return self.ln_post(x if local else x[:, 0]) @ self.proj


class ReferenceCLIP(nn.Module):
    """Image encoder and text encoder, with OpenAI's parameter names."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        context, width = config.context_length, config.transformer_width
        tower = (
            ReferenceVisionTransformer if isinstance(config.vision_layers, int) else ReferenceResNet
        )
        self.visual = tower(config)
        self.transformer = transformer(
            width,
            config.transformer_layers,
            config.text_heads,
            config.activation,
            torch.full((context, context), -torch.inf, device="cpu").triu_(1),
        )
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(context, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.empty(()))

    def encode_prompts(
        self, prompts: Float[Tensor, "classes context width"], eos: Tensor
    ) -> Float[Tensor, "classes embed"]:
        """Encode all tokens of every prompt and return the EOS features, as CoOp's TextEncoder."""
        x = (prompts + self.positional_embedding).permute(1, 0, 2)
        x = self.transformer(x).permute(1, 0, 2)
        x = self.ln_final(x)
        return x[torch.arange(len(x), device=x.device), eos] @ self.text_projection


def build_reference_clip(model: CLIP) -> ReferenceCLIP:
    """Build the frozen reference model with the weights of a `CLIP`, sharing memory if possible."""
    with torch.device("meta"):
        reference = ReferenceCLIP(model.config)
    weights = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
    reference.load_state_dict(weights, assign=True)
    return reference.to(model.logit_scale).requires_grad_(False).eval()


class ReferencePrompts(nn.Module):
    """CoOp's prompts, padded to the full context, such as `[SOS] ctx [name] . [EOS] 0 ...`.

    Args:
        clip_model: a model with OpenAI's names, which provides the token embeddings.
        classnames: C names.
        length: L, the number of context vectors.
        position: of the class name: `end`, `middle` or `front`.
    """

    prefix: Tensor
    suffix: Tensor
    eos: Tensor
    order: Tensor

    def __init__(
        self, clip_model: nn.Module, classnames: Sequence[str], length: int, position: str = "end"
    ) -> None:
        super().__init__()
        names = [name.replace("_", " ") for name in classnames]
        fillers = " ".join(["X"] * length)
        embedding = clip_model.get_submodule("token_embedding")
        context = clip_model.get_parameter("positional_embedding").shape[0]
        ids = tokenize([f"{fillers} {name}." for name in names], context_length=context)
        embedded = embedding(ids.to(clip_model.get_parameter("positional_embedding").device))
        self.in_order = position == "end"
        self.register_buffer("prefix", embedded[:, :1].clone(), persistent=False)
        self.register_buffer("suffix", embedded[:, 1 + length :].clone(), persistent=False)
        self.register_buffer("eos", ids.argmax(dim=-1).to(embedded.device), persistent=False)
        counts = [len(tokenizer().encode(name)) for name in names]
        order = [_order(context, length, count, position) for count in counts]
        self.register_buffer("order", torch.tensor(order, device=embedded.device), persistent=False)

    def forward(self, ctx: Float[Tensor, "*classes length width"]) -> Tensor:
        """Insert the context, shared or of each class, into the prompts (C, context, D)."""
        own = ctx.expand(len(self.eos), *ctx.shape[-2:])
        prompts = torch.cat([self.prefix, own, self.suffix], dim=1)
        if self.in_order:
            return prompts
        return prompts.gather(1, self.order.unsqueeze(-1).expand_as(prompts))


def _order(context: int, length: int, count: int, position: str) -> list[int]:
    """Return the places of the tokens, for a name of `count` tokens behind the context vectors."""
    before = {"end": length, "middle": length // 2, "front": 0}[position]
    vectors, name = list(range(1, 1 + length)), list(range(1 + length, 1 + length + count))
    rest = list(range(1 + length + count, context))
    return [0, *vectors[:before], *name, *vectors[before:], *rest]
