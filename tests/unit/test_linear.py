"""The frozen linear layer is torch's, forward and backward."""

import pytest
import torch
from torch.nn import functional

from clip import linear as module
from clip.linear import Linear, linear


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8), (1, 8)])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_equals_torch(shape: tuple[int, ...], with_bias: bool, frozen: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, generator=generator).requires_grad_()
    weight = torch.randn(6, 8, generator=generator).requires_grad_(not frozen)
    bias = torch.randn(6, generator=generator) if with_bias else None
    direction = torch.randn(*shape[:-1], 6, generator=generator)
    inputs = [x] if frozen else [x, weight]
    results = []
    for function in (linear, functional.linear):
        y = function(x, weight, bias)
        results.append([y, *torch.autograd.grad((y * direction).sum(), inputs)])
    for ours, torchs in zip(*results, strict=True):
        torch.testing.assert_close(ours, torchs, atol=1e-5, rtol=1e-5)


def test_slices_of_a_weight_and_bfloat16() -> None:
    layer = Linear(8, 6).requires_grad_(False)
    x = torch.randn(3, 8)
    torch.testing.assert_close(linear(x, layer.weight[2:], layer.bias[2:]), layer(x)[:, 2:])
    low = layer.to(torch.bfloat16)(x.bfloat16())
    assert low.dtype == torch.bfloat16


def test_a_build_without_onednn_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ONEDNN", False)
    layer = Linear(8, 6).requires_grad_(False)
    x = torch.randn(3, 8)
    assert torch.equal(layer(x), functional.linear(x, layer.weight, layer.bias))
