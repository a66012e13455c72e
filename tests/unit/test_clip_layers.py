"""The frozen linear layer, the frozen image encoder of a run, and the tokenizer."""

import copy
import shutil
import string
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import clip
from clip import linear as module
from clip.build import build_random
from clip.linear import Linear, linear
from clip.simple_tokenizer import SimpleTokenizer, tokenizer
from trainers.core.frozen_encoder import freeze, speed_up

SMALL: dict[str, dict[str, Any]] = {
    "RN50": {"vision_layers": (1, 1, 1, 1), "vision_width": 8, "image_resolution": 64},
    "ViT-B/32": {"vision_layers": 2, "vision_width": 64, "image_resolution": 64},
}


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8), (1, 8)])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_linear_equals_torch(shape: tuple[int, ...], with_bias: bool, frozen: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, generator=generator).requires_grad_()
    weight = torch.randn(6, 8, generator=generator).requires_grad_(not frozen)
    bias = torch.randn(6, generator=generator) if with_bias else None
    direction = torch.randn(*shape[:-1], 6, generator=generator)
    results = []
    for function in (linear, functional.linear):
        y = function(x, weight, bias)
        inputs = [x] if frozen else [x, weight]
        results.append([y, *torch.autograd.grad((y * direction).sum(), inputs)])
    for ours, torchs in zip(*results, strict=True):
        torch.testing.assert_close(ours, torchs, atol=1e-5, rtol=1e-5)


def test_linear_with_slices_bfloat16_and_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = Linear(8, 6).requires_grad_(False), torch.randn(3, 8)
    torch.testing.assert_close(linear(x, layer.weight[2:], layer.bias[2:]), layer(x)[:, 2:])
    monkeypatch.setattr(module, "ONEDNN", False)
    assert torch.equal(layer(x), functional.linear(x, layer.weight, layer.bias))
    monkeypatch.undo()
    assert layer.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16


def encoders(name: str, compile_it: bool = False) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A random image encoder with non-trivial statistics, as loaded and optimised."""
    model = build_random(name, **SMALL[name])
    generator = torch.Generator().manual_seed(0)
    for layer in model.visual.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean):
                tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator))
            layer.running_var.uniform_(0.5, 2, generator=generator)
    freeze(model)
    fast = copy.deepcopy(model.visual)
    speed_up(fast, compile_it)
    return model.visual, fast


def assert_same_features(encoder: torch.nn.Module, fast: torch.nn.Module) -> None:
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for name in ("forward", "forward_local"):
        features = getattr(encoder, name)(images)
        atol = 1e-5 * float(features.abs().max())
        torch.testing.assert_close(getattr(fast, name)(images), features, atol=atol, rtol=0)


def test_autocast_casts_a_frozen_weight_once() -> None:
    layer, x = Linear(8, 6).requires_grad_(False), torch.randn(3, 8)
    weights = layer.weight, layer.bias
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x), functional.linear(x, *weights))
        assert torch.equal(
            linear(x, *weights, slice(2, None)), functional.linear(x, *weights)[:, 2:]
        )
        cast = module._cast[layer.weight][1]
        layer(x)
        assert module._cast[layer.weight][1] is cast
        layer.weight.mul_(2)  # such as another state dict
        assert torch.equal(layer(x), functional.linear(x, *weights))


@pytest.mark.parametrize("name", SMALL)
def test_folding_changes_no_features(name: str) -> None:
    encoder, fast = encoders(name)
    assert_same_features(encoder, fast)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in fast.modules())
    assert not any(parameter.requires_grad for parameter in fast.parameters())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiling_changes_no_features() -> None:
    assert_same_features(*encoders("ViT-B/32", compile_it=True))


def test_context_length_of_tokens() -> None:
    rows = clip.tokenize("a dog", context_length=5)
    assert rows.shape == (1, 5)
    assert rows[0, 3:].tolist() == [49407, 0]


def test_vocabulary() -> None:
    words = SimpleTokenizer()
    assert len(words.encoder) == len(words.decoder) == 49408
    assert words.encoder["<|startoftext|>"] == 49406
    assert all(words.decoder[number] == token for token, number in words.encoder.items())


@settings(deadline=None, max_examples=100)
@given(st.text(alphabet=string.printable.replace("&", "") + "äßéñ", max_size=40))
def test_decoding_inverts_encoding(text: str) -> None:
    ids = tokenizer().encode(text)
    assert tokenizer().encode(tokenizer().decode(ids)) == ids
