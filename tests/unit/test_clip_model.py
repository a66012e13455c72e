"""CLIP's encoders: properties, precisions, and errors for sizes that do not fit."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.reference_clip import build_reference_clip
from clip.build import build_model, build_random, convert_weights
from clip.config import ARCHITECTURES, CLIPConfig, canonical_name, config_from_state_dict
from clip.errors import ImageSizeError, WeightsError
from clip.model import CLIP
from clip.transformer import LayerNorm
from clip.vision_transformer import VisionTransformer
from tests.golden import arrays, images, tiny_clip

ARCHS = ["vit", "rn"]


def _full_pass(model: CLIP, tokens: Tensor) -> Tensor:
    """All positions of the context, by the reference implementation."""
    return build_reference_clip(model).encode_prompts(
        model.token_embedding(tokens), tokens.argmax(dim=-1)
    )


def _tokens(arch: str) -> Tensor:
    return arrays(f"clip_base_{arch}.npz")["tokens"]


def _close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("arch", ARCHS)
def test_text_features_equal_a_pass_over_the_whole_context(arch: str) -> None:
    model = tiny_clip(arch)
    full = torch.full((1, 77), 320)
    full[0, 0], full[0, -1] = 49406, 49407
    for tokens in (_tokens(arch), full):
        _close(model.encode_text(tokens), _full_pass(model, tokens))


@pytest.mark.parametrize("length", [1, 2, 20, 77])
def test_the_text_encoder_is_causal_at_every_length(length: int) -> None:
    transformer = tiny_clip("vit").transformer
    x = torch.randn(77, 3, transformer.width, generator=torch.Generator().manual_seed(0))
    whole = transformer(x)[:length]
    _close(transformer(x[:length]), whole)


@pytest.mark.parametrize("arch", ARCHS)
def test_local_features_begin_with_the_pooled_one(arch: str) -> None:
    model, pictures = tiny_clip(arch), images(arch)
    local = model.encode_image_local(pictures)
    side = {"vit": 32 // 8, "rn": 64 // 32}[arch]
    assert local.shape == (8, 1 + side**2, 32)
    _close(local[:, 0], model.encode_image(pictures))
    with pytest.raises(ImageSizeError, match="48 x 48"):
        model.encode_image(torch.zeros(1, 3, 48, 48))


def test_attributes_that_trainers_use() -> None:
    model = tiny_clip("rn")
    assert model.dtype == torch.float32
    assert model.visual.input_resolution == 64
    assert model.visual.output_dim == 32
    assert model.ln_final.weight.shape[0] == 32
    assert model.text_projection.shape == (32, 32)
    assert not model.training
    model.requires_grad_(False)
    ctx = torch.zeros(7, 2, 32, requires_grad=True)
    model.transformer(ctx).sum().backward()
    assert ctx.grad is not None


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision(arch: str, dtype: torch.dtype) -> None:
    model, tokens = tiny_clip(arch), _tokens(arch)
    expected, _ = model(images(arch), tokens)
    convert_weights(model, dtype)
    assert model.dtype == dtype
    assert model.ln_final.weight.dtype == torch.float32
    assert model.text_projection.dtype == dtype
    assert model.transformer.blocks[0].attn.in_proj_weight.dtype == dtype
    actual, _ = model(images(arch), tokens)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.float(), expected, atol=0.15, rtol=0.05)
    norm, x = LayerNorm(8), (torch.randn(4, 8) * 300).to(dtype)  # computes in fp32
    assert torch.equal(norm(x), norm(x.float()).to(dtype))
    assert torch.equal(norm.to(dtype)(x), norm.float()(x.float()).to(dtype))


def test_build_model_keeps_the_precision_of_the_state_dict() -> None:
    state_dict = tiny_clip("rn").state_dict()
    halves = {k: v.half() if v.is_floating_point() else v for k, v in state_dict.items()}
    assert build_model(halves, transformer_heads=2).dtype == torch.float16
    model = build_model(halves, transformer_heads=2, dtype=torch.float32)
    assert model.dtype == torch.float32
    first = next(model.parameters())
    with torch.no_grad():
        first.zero_()
    assert halves["positional_embedding"].any()  # the state dict is unchanged
    assert build_model(state_dict, transformer_heads=2).dtype == torch.float32

    old = {key: value for key, value in state_dict.items() if "num_batches" not in key}
    # Files of old versions of torch have no `num_batches_tracked`.
    model = build_model(old, transformer_heads=2).to("cpu")
    assert model.state_dict().keys() == state_dict.keys()
    assert not any(value.is_meta for value in model.state_dict().values())


def test_random_models_are_seeded_and_do_not_use_the_global_generator() -> None:
    before = torch.get_rng_state()
    first, second = (build_random("ViT-B/32", vision_layers=1, transformer_layers=1) for _ in "ab")
    other = build_random("ViT-B/32", seed=1, vision_layers=1, transformer_layers=1)
    assert torch.equal(before, torch.get_rng_state())
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.text_projection, other.text_projection)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_state_dict_determines_the_sizes(name: str) -> None:
    with torch.device("meta"):
        model = CLIP(ARCHITECTURES[name])
    config = ARCHITECTURES[name]
    assert config_from_state_dict(model.state_dict()) == config
    assert CLIPConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_spellings() -> None:
    assert canonical_name("vit_b16") == "ViT-B/16"
    assert canonical_name("ViT-B-32") == "ViT-B/32"
    assert canonical_name("rn50") == "RN50"
    assert canonical_name("ViT-L-14-336") == canonical_name("ViT-L-14-336px") == "ViT-L/14@336px"
    assert canonical_name("RN51") is None


def test_heads_context_and_activation_are_arguments() -> None:
    state_dict = tiny_clip("vit").state_dict()
    model = build_model(
        state_dict, transformer_heads=4, vision_heads=2, context_length=20, activation="gelu"
    )
    assert model.config.text_heads == 4 and isinstance(model.visual, VisionTransformer)
    assert model.visual.transformer.blocks[0].attn.heads == 2
    assert model.positional_embedding.shape == (20, 32)
    assert isinstance(model.transformer.blocks[0].mlp.gelu, nn.GELU)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({}, "transformer_heads"),
        ({"transformer_heads": 5}, "transformer_heads"),
        ({"transformer_heads": 2, "vision_heads": 3}, "vision_heads"),
        ({"transformer_heads": 2, "context_length": 78}, "77"),
        ({"transformer_heads": 2, "activation": "relu"}, "quick_gelu"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], part: str) -> None:
    with pytest.raises(WeightsError, match=part):
        build_model(tiny_clip("vit").state_dict(), **arguments)


def test_state_dicts_of_other_models() -> None:
    good = tiny_clip("rn").state_dict()
    without = {key: value for key, value in good.items() if key != "ln_final.bias"}
    wrong = good | {"visual.bn1.bias": torch.zeros(3)}
    more = good | {"visual.trunk.weight": torch.zeros(3)}
    other = {"layer.weight": torch.zeros(2, 2)}
    for state_dict, part in (
        *((without, "ln_final.bias"), (wrong, "bn1.bias"), (more, "trunk")),
        (other, "not that of a CLIP"),
    ):
        with pytest.raises(WeightsError, match=part):
            build_model(state_dict, transformer_heads=2)


@pytest.mark.slow
def test_annotated_shapes_are_right() -> None:
    """Run both encoders with all annotations checked, in a process that imports clip again."""
    code = """
import jaxtyping
with jaxtyping.install_import_hook(["clip"], "beartype.beartype"):
    import clip.text_encoding
from clip.build import convert_weights
import torch
from clip.vision_transformer import VisionTransformer
from tests.golden import arrays, images, tiny_clip
for arch in ("vit", "rn"):
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny_clip(arch)
        convert_weights(model, dtype)
        tokens = arrays(f"clip_base_{arch}.npz")["tokens"]
        model(images(arch), tokens)
        model.encode_image_local(images(arch))
assert hasattr(model.forward, "__wrapped__")
clip.tokenize(["a dog", "a cat"])
"""
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=300)
