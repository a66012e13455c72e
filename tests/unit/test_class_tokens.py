"""Class tokens inserted into the text encoder, against 77-token prompts run block by block."""

import pytest
import torch
from torch import Tensor

from clip import packed_transformer
from clip.class_tokens import ClassTokenEncoder
from clip.clip import tokenize
from clip.errors import PromptError
from clip.model import CLIP
from tests.golden import tiny_clip
from tests.golden.cases import assert_close

NAMES = ["dog", "golden_retriever", "golden eagle", "annual crop land"]
TEMPLATE = "X X X X {}, a type of pet."


def oracle(model: CLIP, ctx: Tensor, tokens: Tensor, template: str, layer: int, w: float) -> Tensor:
    ids = tokenize([template.replace("{}", name.replace("_", " ")) for name in NAMES])
    x = model.token_embedding(ids)
    x = torch.cat([x[:, :1], ctx.expand(len(NAMES), -1, -1), x[:, 5:]], dim=1)
    x = (x + model.positional_embedding).transpose(0, 1)
    for number, block in enumerate(model.transformer.blocks):
        if number == layer:
            mixed = w * tokens.transpose(0, 1) + (1 - w) * x[1:5]
            x = torch.cat([x[:1], mixed, x[5:]])
        x = block(x)
    at_eos = x[ids.argmax(dim=-1), torch.arange(len(NAMES))]
    return model.ln_final(at_eos) @ model.text_projection


@pytest.mark.parametrize(
    ("template", "whole"), [(TEMPLATE, 0), ("a photo of a person doing {}.", 0), (TEMPLATE, 1024)]
)
@pytest.mark.parametrize(("layer", "w"), [(0, 1.0), (1, 1.0), (2, 1.0), (1, 0.5), (0, 0.3)])
def test_features_and_gradients(
    layer: int, w: float, template: str, whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(packed_transformer.WHOLE_GROUP, "cpu", whole)
    model = deep_clip()
    torch.manual_seed(0)
    ctx = torch.randn(3, 4, 32, dtype=torch.float64, requires_grad=True)
    tokens = torch.randn(len(NAMES), 4, 32, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, len(NAMES), 32, dtype=torch.float64)
    encoder = ClassTokenEncoder(model, NAMES, template, layer, w)
    expected = torch.stack([oracle(model, v, tokens, template, layer, w) for v in ctx])
    with torch.no_grad():
        assert_close(encoder(ctx, tokens), expected)
    for memory in (1 << 30, 1):
        encoder.memory_limit = memory
        features = encoder(ctx, tokens)
        assert_close(features, expected)
        ours = torch.autograd.grad(features, (ctx, tokens), weight)
        theirs = torch.autograd.grad(
            expected, (ctx, tokens), weight, retain_graph=True, materialize_grads=True
        )
        for one, other in zip(ours, theirs, strict=True):
            assert_close(one, other)
        assert bool(ours[0].any()) == (layer > 0 or w < 1)


def deep_clip() -> CLIP:
    """The tiny model with one more block, in float64."""
    model = tiny_clip("vit").double()
    more = type(model.transformer.blocks[0])(32, 2, True, "quick_gelu").double()
    torch.manual_seed(1)
    for parameter in more.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.transformer.resblocks.append(more)
    return model.requires_grad_(False)


def test_many_classes_are_encoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_clip("vit")
    ctx, tokens = torch.randn(2, 4, 32), torch.randn(len(NAMES), 4, 32)
    whole = ClassTokenEncoder(model, NAMES, TEMPLATE, 1)(ctx, tokens)
    monkeypatch.setattr("clip.text_encoding.BYTES_AT_ONCE", {"cpu": 40 * 32 * 4})
    parts = ClassTokenEncoder(model, NAMES, TEMPLATE, 1)(ctx, tokens)
    assert_close(parts, whole)


@pytest.mark.parametrize(
    ("layer", "template", "part"),
    [(2, TEMPLATE, "blocks 0 to 1"), (-1, TEMPLATE, "block -1"), (0, "a {}.", '"X X X X"')],
)
def test_refused(layer: int, template: str, part: str) -> None:
    with pytest.raises(PromptError, match=part):
        ClassTokenEncoder(tiny_clip("vit"), NAMES, template, layer)
