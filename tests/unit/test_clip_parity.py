"""Both encoders against open_clip's with the same random weights, and gradients of texts."""

from collections.abc import Iterator
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn

import clip
from clip.build import build_random
from clip.model import CLIP
from tests.helpers.open_clip_model import open_clip_of

CASES = [("RN50", "quick_gelu"), ("ViT-B/16", "quick_gelu"), ("ViT-B/16", "gelu")]
LAYERS: dict[str, Any] = {"RN50": (1, 2, 2, 1), "ViT-B/16": 3}  # the widths are the real ones
TEXTS = ["a photo of a dog.", "diagram", "a centered satellite photo of Annual Crop Land."]


def _shake(model: nn.Module) -> None:
    """Change all weights that OpenAI's initialisation sets to 0 or 1, so that each one matters."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                for value in (module.weight, module.bias):
                    value.normal_(0.3, 0.2, generator=generator)
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[CLIP, Any]]:
    name, activation = request.param
    sizes = {"vision_layers": LAYERS[name], "transformer_layers": 3}
    ours = build_random(name, seed=3, activation=activation, **sizes)
    _shake(ours)
    yield ours, open_clip_of(ours)


def _assert_parity(actual: Tensor, expected: Tensor) -> None:
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(actual / scale, expected / scale, atol=2e-5, rtol=1e-4)


def test_image_features(pair: tuple[CLIP, Any]) -> None:
    ours, theirs = pair
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        _assert_parity(ours.encode_image(images), theirs.encode_image(images))


def test_text_features(pair: tuple[CLIP, Any]) -> None:
    ours, theirs = pair
    tokens = clip.tokenize(TEXTS)
    assert torch.equal(tokens.long(), open_clip.tokenize(TEXTS))
    with torch.no_grad():
        _assert_parity(ours.encode_text(tokens), theirs.encode_text(tokens))


def test_text_gradients(pair: tuple[CLIP, Any]) -> None:
    ours, theirs = pair
    tokens = clip.tokenize(TEXTS)
    weights = torch.randn(
        len(TEXTS), ours.config.embed_dim, generator=torch.Generator().manual_seed(2)
    )
    for model in (ours, theirs):
        model.zero_grad()
        (model.encode_text(tokens) * weights).sum().backward()
    expected = dict(theirs.named_parameters())
    compared = 0
    for name, parameter in ours.named_parameters():
        if parameter.grad is not None:
            _assert_parity(parameter.grad, expected[name].grad)
            compared += 1
    assert compared == 12 * ours.config.transformer_layers + 5
