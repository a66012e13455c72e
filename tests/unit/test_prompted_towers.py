"""Prompts in both towers equal a plain implementation, forward and backward."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from clip import packed_transformer, prompted_vision, text_encoding
from clip.build import build_random
from clip.clip import tokenize
from clip.deep_prompts import DeepPromptEncoder
from clip.errors import PromptError
from clip.model import CLIP
from clip.prompted_vision import PromptedImageEncoder

LAYERS, BATCH, SIDE = 4, 3, 32
NAMES = ["dog", "golden_retriever", "golden cat", "kite (bird of prey)"]
SIZES = {"image_resolution": SIDE, "vision_patch_size": 8, "vision_layers": LAYERS}
WIDTHS = {"vision_width": 48, "vision_heads": 3, "transformer_width": 32, "transformer_heads": 2}


def model(dtype: torch.dtype = torch.float32) -> CLIP:
    """A frozen CLIP none of whose weights is 0 or 1."""
    sizes: dict[str, Any] = SIZES | WIDTHS
    built = build_random("ViT-B/16", embed_dim=24, transformer_layers=LAYERS, **sizes)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return built.requires_grad_(False).to(dtype)


def plain_layers(
    transformer: Any, x: Tensor, prompts: Tensor, rows: slice, mask: Tensor | None
) -> Tensor:
    """All blocks on (batch, length, width), with the prompts of later layers put in."""
    for number, block in enumerate(transformer.resblocks):
        if 0 < number < len(prompts):
            x = x.clone()
            x[:, rows] = prompts[number]
        joint = functional.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
        q, k, v = (
            part.unflatten(-1, (block.attn.heads, -1)).transpose(1, 2)
            for part in joint.chunk(3, dim=-1)
        )
        weights = q @ k.mT / q.shape[-1] ** 0.5
        weights = weights if mask is None else weights.masked_fill(mask, -torch.inf)
        x = x + block.attn.out_proj((weights.softmax(-1) @ v).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.ln_2(x))
    return x


def plain_images(clip_model: CLIP, images: Tensor, prompts: Tensor) -> Tensor:
    visual: Any = clip_model.visual
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)
    x = x + visual.positional_embedding
    if len(prompts):
        x = torch.cat([x, prompts[0].expand(len(x), -1, -1)], dim=1)
    rows = slice(x.shape[1] - prompts.shape[1], None)
    x = plain_layers(visual.transformer, visual.ln_pre(x), prompts, rows, None)
    return visual.ln_post(x[:, 0]) @ visual.proj


def plain_texts(clip_model: CLIP, names: Sequence[str], prompts: Tensor, words: str) -> Tensor:
    length, fillers = prompts.shape[1], " ".join(["X"] * prompts.shape[1])
    ids = tokenize([f"{fillers} {words} {name.replace('_', ' ')}." for name in names])
    rows = slice(1, 1 + length)
    x = clip_model.token_embedding(ids)
    x[:, rows] = prompts[0]
    x = x + clip_model.positional_embedding
    mask = torch.ones(77, 77, dtype=torch.bool).triu_(1)
    x = plain_layers(clip_model.transformer, x, prompts, rows, mask)
    at_eos = x[torch.arange(len(x)), ids.argmax(dim=-1)]
    return clip_model.ln_final(at_eos) @ clip_model.text_projection


def images() -> Tensor:
    return torch.randn(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def vectors(width: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    return (0.5 * torch.randn(*shape, width, generator=generator)).requires_grad_()


def assert_same(
    ours: Callable[[Tensor], Tensor], plain: Callable[[Tensor], Tensor], prompts: Tensor
) -> None:
    """Features and gradients are equal up to 2e-5 of the largest number; without gradient, too."""
    results = []
    for encode in (ours, plain):
        features = encode(prompts)
        weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
        results.append((features, *torch.autograd.grad((features * weights).sum(), prompts)))
    with torch.no_grad():
        results[0] += (ours(prompts),)
    for own, expected in zip(results[0], (*results[1], results[1][0]), strict=True):
        assert own.shape == expected.shape
        atol = 2e-5 * float(expected.detach().abs().max())
        torch.testing.assert_close(own, expected, atol=atol, rtol=0)


DEPTHS = [1, 2, LAYERS - 1, LAYERS]


def test_no_prompts() -> None:
    clip_model, batch, none = model(), images(), torch.empty(0, 4, 48)
    features = PromptedImageEncoder(clip_model)(batch, torch.stack([none, none]))
    torch.testing.assert_close(features, clip_model.encode_image(batch).expand(2, -1, -1))


@pytest.mark.parametrize("precision", ["bf16", "amp"])
@pytest.mark.parametrize("depth", [1, 3])
def test_low_precision_stays_near_fp32(depth: int, precision: str) -> None:
    exact, rounded = model(), model(torch.bfloat16 if precision == "bf16" else torch.float32)
    texts, batch, results = vectors(32, 2, depth, 2), images(), list[Tensor]()
    with torch.no_grad():
        prompts = vectors(48, 2, depth, 2)
        for clip_model, mixed in ((exact, False), (rounded, precision == "amp")):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
                image_features = PromptedImageEncoder(clip_model)(batch, prompts)
                text_features = DeepPromptEncoder(clip_model, NAMES, 2, "of a")(texts)
            results.append(torch.cat([image_features, text_features], dim=1).float())
    assert torch.cosine_similarity(results[0], results[1], dim=-1).min() > 0.99


def test_prompts_that_do_not_fit() -> None:
    clip_model = model()
    with pytest.raises(PromptError, match="ResNet"):
        PromptedImageEncoder(build_random("RN50", vision_layers=(1, 1, 1, 1), vision_width=8))
    with pytest.raises(PromptError, match=r"depth is 5.* image encoder has 4"):
        PromptedImageEncoder(clip_model)(images(), vectors(48, LAYERS + 1, 2))
    for depth in (0, LAYERS + 1):
        with pytest.raises(PromptError, match=rf"depth is {depth}.* text encoder .* 1 to 4"):
            DeepPromptEncoder(clip_model, NAMES, 2)(vectors(32, depth, 2))
    with pytest.raises(PromptError, match=r"class 'a_dog_dog.*holds 77"):
        DeepPromptEncoder(clip_model, ["a" + "_dog" * 70], 4, "of a")


@pytest.mark.parametrize(
    ("length", "memory", "at_once"), [(4, 4 << 30, 100), (1, 0, 2), (4, 4 << 30, 7)]
)
@pytest.mark.parametrize("depth", DEPTHS)
def test_images(
    depth: int, length: int, memory: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(prompted_vision.BYTES_AT_ONCE, "cpu", at_once * 17 * 48 * 4)
    clip_model, batch = model(), images()
    encoder = PromptedImageEncoder(clip_model)
    encoder.memory_limit = memory

    def plain(prompts: Tensor) -> Tensor:
        return plain_images(clip_model, batch, prompts)

    assert_same(lambda prompts: encoder(batch, prompts), plain, vectors(48, depth, length))
    assert_same(
        lambda prompts: encoder(batch, prompts),
        lambda prompts: torch.stack([plain(group) for group in prompts]),
        vectors(48, 3, depth, length),
    )


@pytest.mark.parametrize(
    ("length", "words", "memory", "at_once"),
    [(2, "of a", 4 << 30, 10_000), (1, "", 4 << 30, 30), (5, "", 0, 10_000)],
)
@pytest.mark.parametrize("whole", [0, 1024])
@pytest.mark.parametrize("depth", DEPTHS)
def test_texts(
    depth: int,
    whole: int,
    length: int,
    words: str,
    memory: int,
    at_once: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(packed_transformer.WHOLE_GROUP, "cpu", whole)
    monkeypatch.setitem(text_encoding.BYTES_AT_ONCE, "cpu", at_once * 32 * 4)
    clip_model = model()
    encoder = DeepPromptEncoder(clip_model, NAMES, length, words)
    encoder.memory_limit = memory

    def plain(prompts: Tensor) -> Tensor:
        return plain_texts(clip_model, NAMES, prompts, words)

    assert_same(encoder, plain, vectors(32, depth, length))
    assert_same(
        encoder,
        lambda prompts: torch.stack([plain(group) for group in prompts]),
        vectors(32, 3, depth, length),
    )
