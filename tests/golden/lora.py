"""CLIP-LoRA, CoTo, and pairs of adapters against the golden numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dassl.optim import iteration_cosine
from nemesis.adapters.analysis import (
    WAYS,
    barrier,
    combine,
    interpolate,
    players_of,
    rank_sum,
    sampled_shapley,
    shapley,
)
from nemesis.adapters.scoring import Scorer
from tests.golden.cases import Case, assert_close
from tests.golden.harness import golden_trainer
from trainers.core.lora import deltas_of
from trainers.coto import activation_probability

TOLERANCE = 1e-4  # logit scale 100: 8e-5 between fp32 and float64


def lora_trainer(case: Case, name: str, params: dict[str, Any], root: Path, *opts: Any) -> Any:
    """The trainer of a case, with a schedule of `total` iterations."""
    sqrt = params["alpha"] / params["r"] ** 0.5
    scaling = "sqrt" if params["scaling"] == pytest.approx(sqrt) else "rank"
    settings: dict[str, Any] = {
        "TRAINER.CLIPLORA.ENCODER": params["encoder"],
        "TRAINER.CLIPLORA.PARAMS": params["params"],
        "TRAINER.CLIPLORA.R": params["r"],
        "TRAINER.CLIPLORA.ALPHA": float(params["alpha"]),
        "TRAINER.CLIPLORA.SCALING": scaling,
        "TRAINER.CLIPLORA.DROPOUT": 0.0,
        "TRAINER.CLIPLORA.LOGIT_SCALE": float(params["logit_scale"]),
        "TRAINER.CLIPLORA.ITERS_PER_SHOT": 0,
        "TRAINER.CLIPLORA.MIN_LR": params.get("eta_min", 1e-6),
        "OPTIM.NAME": "adamw",
        "OPTIM.LR": params["lr"],
        "OPTIM.WEIGHT_DECAY": params.get("weight_decay", 1e-2),
        "OPTIM.WARMUP_EPOCH": 0,
        "OPTIM.MAX_EPOCH": params["total"],  # of one batch each
        "DATASET.CLASSNAMES": case.classes,
    }
    if "blocks" in params:
        settings["TRAINER.CLIPLORA.BLOCKS"] = params["blocks"]
    pairs = [item for pair in settings.items() for item in pair]
    trainer = golden_trainer(name, case.arch, root, *pairs, *opts, source=case.folder)
    assert trainer.adapters.settings.gamma == pytest.approx(params["scaling"])
    return trainer


def state_of(expected: dict[str, Tensor], prefix: str, number: int | None = None) -> dict[str, Any]:
    """The adapters under a prefix, as a state dict."""
    start = f"{prefix}."
    found = {k.removeprefix(start): v for k, v in expected.items() if k.startswith(start)}
    return found if number is None else {key: value[number] for key, value in found.items()}


def check_state(trainer: Any, expected: dict[str, Tensor]) -> None:
    own = trainer.adapters.state_dict()
    assert own.keys() == expected.keys()
    for key, value in expected.items():
        assert_close(own[key], value)


def train(trainer: Any, case: Case, *prefixes: str) -> None:
    """All steps of a case, whose losses, rates, gradients and adapters are compared.

    The prefixes are those of the gradients of the first steps.
    """
    expected, batches = case.expected, case.params["batches"]
    for step, loss in enumerate(expected["losses"]):
        batch = batches[step % len(batches)]
        assert trainer.get_current_lr() == pytest.approx(float(expected["lr"][step]), rel=1e-9)
        images, labels = case.images(batch), case.labels(batch)
        summary = trainer.forward_backward({"img": images, "label": labels})
        assert_close(summary["loss"], loss, TOLERANCE)
        gradients = state_of(expected, prefixes[step]) if step < len(prefixes) else {}
        for key, parameter in trainer.adapters.named_parameters():
            if key in gradients:
                assert_close(parameter.grad, gradients[key], TOLERANCE)
            elif gradients:
                assert parameter.grad is None, key
        if step < 3:
            check_state(trainer, state_of(expected, "steps", step))
    check_state(trainer, state_of(expected, "final"))


def check_clip_lora(case: Case, root: Path) -> None:
    expected, params = case.expected, case.params
    trainer = lora_trainer(case, "CLIPLoRA", params, root)
    model, adapters = trainer.model, trainer.adapters
    blocks = {key.split(".")[1] for key in adapters.by_key()}
    assert sorted(map(int, blocks)) == params["blocks"]
    assert_close(model.frozen.encode_image(case.images()), expected["base_image_features"])
    assert_close(model.frozen.encode_text(expected["tokens"]), expected["base_text_features"])
    adapters.load_state_dict(state_of(expected, "start"))
    assert_close(model.adapted.encode_image(case.images()), expected["image_features"])
    assert_close(model.adapted.encode_text(expected["tokens"]), expected["text_features"])
    with torch.no_grad():
        for number, logits in enumerate(expected["logits"][:1]):
            assert_close(model(case.images(number)), logits, TOLERANCE)
    train(trainer, case, "grad")
    with trainer.cached_text_features():
        assert_close(model(case.images()), expected["eval_logits"], TOLERANCE)
    tower, block, name = params["merged_of"].split(".")
    with model.merged() as merged:
        towers = {"vision": merged.visual, "text": merged}
        attention = towers[tower].transformer.blocks[int(block)].attn
        width = len(expected["merged_weight"])
        weights = [*attention.in_proj_weight.split(width), attention.out_proj.weight]
        assert_close(weights["qkvo".index(name)], expected["merged_weight"])


def check_coto(case: Case, root: Path) -> None:
    expected, params = case.expected, case.params
    coto = params["coto"]
    names = {"INITIAL_P": "initial_p", "FINAL_P": "final_p", "RATIO": "ratio"}
    opts = [x for key, name in names.items() for x in (f"TRAINER.COTO.{key}", coto[name])]
    modules = ("TRAINER.COTO.MODULES", coto["module_num"])
    trainer = lora_trainer(case, "CoTo", params, root, *opts, *modules)
    keys = list(trainer.adapters.by_key())
    assert keys == params["adapters"]
    groups = [i for i, group in enumerate(trainer.groups) for _ in group]
    assert groups == params["group_of_adapter"]
    trainer.adapters.load_state_dict(state_of(expected, "start"))
    drawn = iter(expected["uniform"])
    trainer.draw = lambda: next(drawn)
    train(trainer, case, "grad0", "grad1", "grad2")
    with trainer.cached_text_features():
        assert_close(trainer.model(case.images()), expected["eval_logits"], TOLERANCE)


def check_pair(case: Case, root: Path) -> None:
    expected, params = case.expected, case.params
    trainer = lora_trainer(case, "CLIPLoRA", {**params["settings"][0], **params}, root)
    first, second = solutions = [state_of(expected, f"solution{number}") for number in (1, 2)]
    scorer = Scorer(trainer.model, expected["labels"], lambda: [case.images()])
    gamma, weights = params["scaling"], params["lambdas"]
    for way in WAYS:
        losses = []
        for number, weight in enumerate(weights):
            logits = scorer.logits(interpolate(first, second, gamma, weight, way))
            score = scorer.score(logits)
            losses.append(score.loss)
            assert_close(logits, expected[f"interp_{way}_logits"][number], TOLERANCE)
            accuracy = float(expected[f"interp_{way}_accuracy"][number])
            assert score.accuracy == pytest.approx(accuracy * (100 if accuracy <= 1 else 1))
        assert losses == pytest.approx(expected[f"interp_{way}_loss"].tolist(), abs=TOLERANCE)
        assert barrier(weights, losses) == pytest.approx(params["barrier"][way], abs=TOLERANCE)
    for name, factors in params["merges"].items():
        merged = rank_sum(solutions, [gamma, gamma], factors, 0.3)
        logits = scorer.logits(deltas_of(merged, 0.3))
        assert_close(logits, expected[f"merge_{name}_logits"], TOLERANCE)
        added = combine([deltas_of(one, gamma) for one in solutions], factors)
        assert_close(scorer.logits(added), logits, TOLERANCE)
    _check_subsets(case, scorer, deltas_of(solutions[0], gamma))


def _check_subsets(case: Case, scorer: Scorer, deltas: dict[str, Tensor]) -> None:
    expected, players = case.expected, case.params["players"]
    assert players_of(list(deltas)) == players
    of_subset = scorer.subset_logits(deltas, players)
    values = []
    for subset, logits in enumerate(expected["subset_logits"]):
        assert_close(of_subset(subset), logits, TOLERANCE)
        values.append([-scorer.score(of_subset(subset)).loss])
    assert_close(torch.tensor(values)[:, 0], expected["subset_value"], TOLERANCE)
    exact = shapley(torch.tensor(values, dtype=torch.float64))[:, 0]
    assert_close(exact, expected["shapley"], TOLERANCE)
    sampled = sampled_shapley(lambda subset: values[subset], len(players), 200, seed=0)[:, 0]
    assert_close(sampled, exact, 0.25 * float(exact.abs().max()))


def check_schedules(record: dict[str, Any]) -> None:
    for one in record["coto_p"]:
        settings = [one[key] for key in ("total_steps", "initial_p", "final_p", "ratio")]
        ours = [activation_probability(step, *settings) for step in one["steps"]]
        assert ours == pytest.approx(one["p"], abs=1e-12)
    for one in record["clip_lora_lr"]:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=one["lr"])
        schedule = iteration_cosine(optimizer, one["total_iters"], one["eta_min"])
        ours = [schedule.lr_at(step, one["lr"]) for step in one["steps"]]
        assert ours == pytest.approx(one["values"], rel=1e-6)
