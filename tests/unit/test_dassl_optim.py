"""Optimisers and schedules."""

import math

import pytest
import torch
from torch import nn

from dassl.config import CfgNode, get_cfg_default
from dassl.optim import AVAI_OPTIMS, build_lr_scheduler, build_optimizer
from safeio.errors import UserError


def config(**values: object) -> CfgNode:
    cfg = get_cfg_default().OPTIM
    for key, value in values.items():
        cfg[key] = value
    return cfg


def rates(cfg: CfgNode, epochs: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = build_lr_scheduler(optimizer, cfg)
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("name", AVAI_OPTIMS)
def test_every_optimiser_learns(name: str) -> None:
    model = nn.Linear(3, 1)
    optimizer = build_optimizer(model, config(NAME=name, LR=0.05))
    x = torch.eye(3)
    losses = []
    for _ in range(20):
        loss = (model(x) - 1).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert optimizer.defaults["weight_decay"] == 5e-4


def test_options_arrive() -> None:
    params = [nn.Parameter(torch.zeros(2))]
    sgd = build_optimizer(params, config(NAME="sgd", SGD_NESTEROV=True, MOMENTUM=0.8))
    assert (sgd.defaults["nesterov"], sgd.defaults["momentum"]) == (True, 0.8)
    adam = build_optimizer(params, config(NAME="adam", ADAM_BETA1=0.5))
    assert adam.defaults["betas"] == (0.5, 0.999)
    assert build_optimizer(params, config(NAME="amsgrad")).defaults["amsgrad"]
    groups = build_optimizer(nn.Linear(1, 1), config(NAME="sgd"), param_groups=params)
    assert groups.param_groups[0]["params"] == params
    with pytest.raises(UserError, match='did you mean "sgd"'):
        build_optimizer(params, config(NAME="SGD"))


def test_staged_rates() -> None:
    model = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    cfg = config(NAME="sgd", LR=1.0, STAGED_LR=True, NEW_LAYERS=("head",))
    optimizer = build_optimizer(model, cfg)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 1.0]
    assert optimizer.param_groups[1]["params"] == list(model["head"].parameters())
    with pytest.raises(UserError, match="hea"):
        build_optimizer(model, config(STAGED_LR=True, NEW_LAYERS=("hea",)))
    with pytest.raises(UserError, match="STAGED_LR"):
        build_optimizer(model.parameters(), cfg)


def test_schedules() -> None:
    single = rates(config(LR_SCHEDULER="single_step", STEPSIZE=(3,)), 7)
    assert single == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01])
    whole = rates(config(LR_SCHEDULER="single_step", MAX_EPOCH=4), 5)
    assert whole == pytest.approx([1, 1, 1, 1, 0.1])
    multi = rates(config(LR_SCHEDULER="multi_step", STEPSIZE=(2, 5), GAMMA=0.5), 6)
    assert multi == [1, 1, 0.5, 0.5, 0.5, 0.25]
    cfg = config(LR_SCHEDULER="multi_step", STEPSIZE=(2,), WARMUP_EPOCH=2, WARMUP_TYPE="linear")
    assert rates(cfg, 6) == pytest.approx([1e-5, 0.5, 1, 1, 0.1, 0.1])
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
    for rate in rates(config(LR_SCHEDULER="cosine", MAX_EPOCH=30), 30):
        assert math.isclose(rate, optimizer.param_groups[0]["lr"], rel_tol=1e-9)
        optimizer.step()
        theirs.step()


def test_bad_schedules() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    for cfg, part in (
        (config(LR_SCHEDULER="cosinus"), '"cosine"'),
        (config(WARMUP_EPOCH=1, WARMUP_TYPE="linaer"), '"linear"'),
        (config(STEPSIZE=(1.5,)), "STEPSIZE"),
        (config(LR_SCHEDULER="multi_step", STEPSIZE=3), "STEPSIZE"),
    ):
        with pytest.raises(UserError, match=part):
            build_lr_scheduler(optimizer, cfg)


def test_state_is_plain_and_complete() -> None:
    cfg = config(LR_SCHEDULER="cosine", MAX_EPOCH=9, WARMUP_EPOCH=1, WARMUP_TYPE="constant")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = build_lr_scheduler(optimizer, cfg)
    expected = rates(cfg, 9)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    state, optimizer_state = scheduler.state_dict(), optimizer.state_dict()
    assert all(isinstance(value, int | list) for value in state.values())
    other = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    resumed = build_lr_scheduler(other, cfg)
    other.load_state_dict(optimizer_state)
    resumed.load_state_dict(state)
    for epoch in range(4, 9):
        assert other.param_groups[0]["lr"] == expected[epoch]
        resumed.step()
    with pytest.raises(ValueError, match="Dassl"):
        resumed.load_state_dict({**state, "successor": None})
