"""The frozen image tower of a run gives the features of the tower as it was loaded."""

import copy
import shutil
from typing import Any

import pytest
import torch

from clip.build import build_random
from trainers.core.frozen_encoder import freeze, speed_up

SMALL: dict[str, dict[str, Any]] = {
    "RN50": {"vision_layers": (1, 1, 1, 1), "vision_width": 8, "image_resolution": 64},
    "ViT-B/32": {"vision_layers": 2, "vision_width": 64, "image_resolution": 64},
}


def towers(name: str, compile_it: bool = False) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A random tower with statistics of its own, as loaded and sped up."""
    model = build_random(name, **SMALL[name])
    generator = torch.Generator().manual_seed(0)
    for module in model.visual.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                assert tensor is not None
                tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator))
            assert module.running_var is not None
            module.running_var.uniform_(0.5, 2, generator=generator)
    freeze(model)
    fast = copy.deepcopy(model.visual)
    speed_up(fast, compile_it)
    return model.visual, fast


def assert_same_features(tower: torch.nn.Module, fast: torch.nn.Module) -> None:
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for name in ("forward", "forward_local"):
        features = getattr(tower, name)(images)
        atol = 1e-5 * float(features.abs().max())
        torch.testing.assert_close(getattr(fast, name)(images), features, atol=atol, rtol=0)


@pytest.mark.parametrize("name", SMALL)
def test_features_stay(name: str) -> None:
    tower, fast = towers(name)
    assert_same_features(tower, fast)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fast.modules())
    assert not any(parameter.requires_grad for parameter in fast.parameters())


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_features_stay() -> None:
    assert_same_features(*towers("ViT-B/32", compile_it=True))
