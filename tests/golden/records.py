"""Learning rates, schedules of omega, few-shot draws and the tokenizer against their records."""

import random
import re
from typing import Any

import pytest
import torch

import clip
from clip.simple_tokenizer import tokenizer
from dassl.config import get_cfg_default
from dassl.data.datasets import DatasetBase, Datum
from dassl.data.datasets.splits import split_trainval, subsample_classes
from dassl.optim import build_lr_scheduler
from trainers.nemesis import omega_schedule


def check_schedules(record: dict[str, Any]) -> None:
    for max_epoch, factors in record.get("omega_schedule", {}).items():
        ours = [omega_schedule(epoch, int(max_epoch)) for epoch in range(len(factors))]
        assert ours == pytest.approx(factors, abs=1e-12), max_epoch
    for name, rates in record.get("lr", {}).items():
        match = re.fullmatch(r"max(\d+)_(constant|linear|none)(\d+)_recount(True|False)", name)
        assert match is not None, f"the name of the schedule {name} does not say what it is"
        assert _rates(match, len(rates)) == pytest.approx(rates, rel=1e-9, abs=1e-15), name


def _rates(match: re.Match[str], count: int) -> list[float]:
    cfg = get_cfg_default()
    cfg.OPTIM.LR_SCHEDULER = "cosine"
    cfg.OPTIM.MAX_EPOCH = int(match[1])
    cfg.OPTIM.WARMUP_TYPE = match[2]
    cfg.OPTIM.WARMUP_EPOCH = int(match[3])
    cfg.OPTIM.WARMUP_RECOUNT = match[4] == "True"
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.002)
    scheduler = build_lr_scheduler(optimizer, cfg.OPTIM)
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def check_fewshot(record: dict[str, Any]) -> None:
    def items(order: list[list[int]], part: str) -> list[Datum]:
        return [
            Datum(f"{part}_c{label}_{number:02d}", label, classname=record["classes"][label])
            for label, number in order
        ]

    def train(case: dict[str, Any]) -> list[Datum]:
        return items(record["orders"][case["order"]], "train")

    val = items(record["val_order"], "val")
    for case in record.get("cases", []):
        _check_draw(case, train(case), val)
    for case in record.get("subsample", []):
        _check_half(case, train(case), val)
    for case in record.get("split_trainval", []):
        cut = split_trainval(train(case), case["p_val"], random.Random(case["seed"]))
        assert [paths(part) for part in cut] == [case["train"], case["val"]], case["seed"]


def paths(data: list[Datum]) -> list[str]:
    return [item.impath for item in data]


def _check_draw(case: dict[str, Any], train: list[Datum], val: list[Datum]) -> None:
    dataset, rng = DatasetBase(train_x=train, val=val, test=val), random.Random(case["seed"])
    shots, where = case["num_shots"], [case["order"], case["num_shots"], case["seed"]]
    drawn = dataset.generate_fewshot_dataset(train, num_shots=shots, rng=rng)
    assert paths(drawn) == case["train"], where
    drawn = dataset.generate_fewshot_dataset(val, num_shots=min(shots, 4), rng=rng)
    assert paths(drawn) == case["val"], where


def _check_half(case: dict[str, Any], train: list[Datum], val: list[Datum]) -> None:
    kept = subsample_classes(train, val, subsample=case["subsample"])
    for part, data in zip(("train", "val"), kept, strict=True):
        found = [[item.impath, item.label, item.classname] for item in data]
        assert found == case[part], case["subsample"]
    assert DatasetBase(train_x=kept[0]).classnames == case["classnames"]


def check_tokenizer(record: dict[str, Any]) -> None:
    for text, ids, decoded, row in zip(
        record["strings"], record["encode"], record["decode"], record["tokenize_77"], strict=True
    ):
        assert tokenizer().encode(text) == ids, text
        assert tokenizer().decode(ids) == decoded, text
        assert clip.tokenize(text)[0].tolist() == row, text
    rows = clip.tokenize(record["strings"])
    assert rows.dtype == torch.int32
    assert rows.tolist() == record["tokenize_77"]
    assert tokenizer().encoder["<|startoftext|>"] == record["sot"]
    assert tokenizer().encoder["<|endoftext|>"] == record["eot"]
    text = record["too_long"]["text"]
    with pytest.raises(RuntimeError) as raised:
        clip.tokenize(text)
    start, end = record["too_long"]["error"].split(" ... ")  # the record leaves the middle out
    assert str(raised.value).startswith(start)
    assert str(raised.value).endswith(end)
    assert clip.tokenize(text, truncate=True)[0].tolist() == record["too_long"]["truncated"]
