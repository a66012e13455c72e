"""Learning rates and few-shot draws equal those of the reference implementations."""

import random
import re
from typing import Any

import pytest
import torch

from dassl.config import get_cfg_default
from dassl.data.datasets import DatasetBase, Datum
from dassl.data.datasets.splits import split_trainval, subsample_classes
from dassl.optim import build_lr_scheduler
from tests.dassl_toy import read_golden

FEWSHOT = read_golden("fewshot.json")
LR = read_golden("schedules.json")["lr"]


@pytest.mark.parametrize("name", LR)
def test_learning_rates(name: str) -> None:
    match = re.fullmatch(r"max(\d+)_(constant|linear|none)(\d+)_recount(True|False)", name)
    assert match is not None
    cfg = get_cfg_default()
    cfg.OPTIM.LR_SCHEDULER = "cosine"
    cfg.OPTIM.MAX_EPOCH = int(match[1])
    cfg.OPTIM.WARMUP_TYPE = match[2]
    cfg.OPTIM.WARMUP_EPOCH = int(match[3])
    cfg.OPTIM.WARMUP_RECOUNT = match[4] == "True"
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.002)
    scheduler = build_lr_scheduler(optimizer, cfg.OPTIM)
    rates = []
    for _ in LR[name]:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx(LR[name], rel=1e-9, abs=1e-15)


def items(order: list[list[int]], part: str) -> list[Datum]:
    names = FEWSHOT["classes"]
    return [
        Datum(f"{part}_c{label}_{number:02d}", label, classname=names[label])
        for label, number in order
    ]


def paths(data: list[Datum]) -> list[str]:
    return [item.impath for item in data]


@pytest.mark.parametrize(
    "case", FEWSHOT["cases"], ids=lambda c: f"{c['order']}-{c['num_shots']}-{c['seed']}"
)
def test_fewshot(case: dict[str, Any]) -> None:
    train = items(FEWSHOT["orders"][case["order"]], "train")
    val = items(FEWSHOT["val_order"], "val")
    dataset = DatasetBase(train_x=train, val=val, test=val)
    rng = random.Random(case["seed"])
    shots = case["num_shots"]
    drawn = dataset.generate_fewshot_dataset(train, num_shots=shots, rng=rng)
    assert paths(drawn) == case["train"]
    drawn = dataset.generate_fewshot_dataset(val, num_shots=min(shots, 4), rng=rng)
    assert paths(drawn) == case["val"]


@pytest.mark.parametrize("case", FEWSHOT["subsample"], ids=lambda c: c["subsample"])
def test_halves_of_the_classes(case: dict[str, Any]) -> None:
    train = items(FEWSHOT["orders"][case["order"]], "train")
    val = items(FEWSHOT["val_order"], "val")
    kept = subsample_classes(train, val, subsample=case["subsample"])
    for part, data in zip(("train", "val"), kept, strict=True):
        assert [[d.impath, d.label, d.classname] for d in data] == case[part]
    assert DatasetBase(train_x=kept[0]).classnames == case["classnames"]


@pytest.mark.parametrize("case", FEWSHOT["split_trainval"], ids=lambda c: str(c["seed"]))
def test_cutting_off_validation(case: dict[str, Any]) -> None:
    trainval = items(FEWSHOT["orders"][case["order"]], "train")
    train, val = split_trainval(trainval, case["p_val"], random.Random(case["seed"]))
    assert paths(train) == case["train"]
    assert paths(val) == case["val"]
