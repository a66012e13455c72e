"""timm's vision transformers with prompts equal timm's own pass; other models are refused."""

import builtins
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from dassl.config import CfgNode, get_cfg_default
from tests.helpers.refusals import refused
from trainers.core.timm_tower import TimmTower, load_timm

NAME = "vit_tiny_patch16_224"
HALF = [0.5, 0.5, 0.5]
KINDS: list[dict[str, Any]] = [
    {},
    {"global_pool": "avg"},
    {"pre_norm": True, "no_embed_class": True},
    {"reg_tokens": 2, "init_values": 0.1},
    {"class_token": False, "global_pool": "map"},
]


def tiny(**options: Any) -> TimmTower:
    """A tower of three layers with random weights, large enough for the prompts to matter."""
    torch.manual_seed(0)
    size = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2}
    model = timm.models.vision_transformer.VisionTransformer(**{**size, **options})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return TimmTower(model)


def cfg_of(name: str, **keys: Any) -> CfgNode:
    cfg = get_cfg_default()
    settings = {"INPUT.PIXEL_MEAN": HALF, "INPUT.PIXEL_STD": HALF, "MODEL.BACKBONE.NAME": name}
    for key, value in {**settings, **keys}.items():
        cfg.set_value(key, value, source="test")
    return cfg


@pytest.mark.parametrize("options", KINDS)
def test_without_prompts_it_is_timms_own_pass(options: dict[str, Any]) -> None:
    tower = tiny(**options)
    images = torch.randn(2, 3, 16, 16)
    expected = tower.model.forward_head(tower.model.forward_features(images), pre_logits=True)
    found = tower(images, torch.zeros(0, 4, tower.width))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert found.shape == (2, tower.embed_dim) and tower.patch_size == (8, 8)


@pytest.mark.parametrize("options", KINDS[:3])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_prompts_are_tokens_that_later_ones_replace(options: dict[str, Any], depth: int) -> None:
    """Against a pass written with the prompts behind the patches, whose order has no effect."""
    tower, images = tiny(**options), torch.randn(2, 3, 16, 16)
    prompts = torch.randn(depth, 4, tower.width, requires_grad=True)
    model = tower.model
    x, patches = model._pos_embed(model.patch_embed(images)), 5
    for number, block in enumerate(model.blocks):
        if number < depth:
            x = torch.cat([x[:, :patches], prompts[number].expand(2, -1, -1)], dim=1)
        x = block(model.norm_pre(x) if number == 0 else x)
    expected = model.forward_head(model.norm(x)[:, :patches], pre_logits=True)
    torch.testing.assert_close(tower(images, prompts), expected)
    tower(images, prompts).square().sum().backward()
    assert prompts.grad is not None and bool((prompts.grad.abs().sum((1, 2)) > 0).all())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_norm_of_the_first_prompts_matters_without_a_norm_before_the_blocks() -> None:
    images, prompts = torch.randn(2, 3, 16, 16), torch.randn(1, 4, 16)
    for options, least, most in (({}, 1e-2, 10.0), ({"pre_norm": True}, 0.0, 1e-3)):
        tower = tiny(**options)
        change = (tower(images, prompts) - tower(images, prompts / 2)).abs().max()
        assert least <= float(change) <= most


def test_weights_from_a_file(tmp_path: Path) -> None:
    model: Any = timm.create_model(NAME)
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    tower = load_timm(cfg_of(f"timm:{NAME}@{tmp_path}/vit.safetensors"))
    torch.testing.assert_close(tower.model.state_dict(), model.state_dict())
    assert tower.layers == 12 and not tower.training
    assert load_timm(cfg_of(f"timm:{NAME}", **{"MODEL.BACKBONE.PRETRAINED": False})).width == 192
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    for file in ("broken.safetensors", "gone.safetensors"):
        with refused(f"weights of .*{file}.* cannot be loaded", "PRETRAINED False"):
            load_timm(cfg_of(f"timm:{NAME}@{tmp_path}/{file}"))


@pytest.mark.parametrize(
    ("name", "keys", "parts"),
    [
        ("timm:resnet18", {}, ('"resnet18" of timm is a ResNet', "vit_base_patch16_224")),
        ("timm:vit_tinny_patch16_224", {}, ("timm has no model", "vit_tiny_patch16_224")),
        (f"timm:{NAME}", {"INPUT.SIZE": (64, 64)}, (r"INPUT.SIZE is \(64, 64\)", r"\(224, 224\)")),
        (f"timm:{NAME}", {"INPUT.PIXEL_MEAN": [0.4] * 3}, ("INPUT.PIXEL_MEAN is", "0.5")),
    ],
)
def test_another_model_is_one_sentence(name: str, keys: dict[str, Any], parts: Any) -> None:
    with refused(*parts):
        load_timm(cfg_of(name, **keys))


def test_missing_timm_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "timm":
            raise ModuleNotFoundError("No module named 'timm'", name="timm")
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with refused(r"needs timm, which is not installed; pip install '\.\[timm\]'"):
        load_timm(cfg_of(f"timm:{NAME}"))
