"""PLOT and PLOT with Nemesis against the golden numbers, through the real trainer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.golden import arrays, assert_golden, cases, images, labels
from tests.golden_trainer import (
    fix_positions,
    golden_trainer,
    nemesis_options,
    set_prompts,
    set_rate,
    step,
)
from trainers.nemesis import norm_loss, rescale
from trainers.sinkhorn import sinkhorn

Record = Callable[[str, object], None]


@pytest.mark.parametrize("case", cases("plot"))
def test_plot(case: dict[str, Any], tmp_path: Path, record_property: Record) -> None:
    record_property("golden", "plot")
    expected, params = arrays(case["file"]), case["params"]
    trainer = golden_trainer("PLOT", "rn", tmp_path, "TRAINER.PLOT.N", params["N"])
    set_prompts(trainer, expected["ctx"])
    model, learner = trainer.model, trainer.model.prompt_learner

    features, text = model.image_features(images("rn")), model.text_features(learner())
    local = torch.nn.functional.normalize(expected["image_features"], dim=-1)
    assert_golden(features, local.transpose(0, 1))
    flat = torch.nn.functional.normalize(expected["text_features"], dim=-1)
    assert_golden(text[0].flatten(0, 1), flat)
    similarity = model.similarities(features, text)
    assert_golden(similarity[0].flatten(0, 1), expected["sim"])
    plan = sinkhorn(1 - similarity, params["eps"], params["max_iter"], params["thresh"])
    assert_golden(plan[0].flatten(0, 1), expected["T"])
    assert_golden(plan[0].flatten(0, 1).sum(-1), expected["T_row_sum"])
    assert_golden(plan[0].flatten(0, 1).sum(-2), expected["T_col_sum"])
    assert_golden(model(images("rn")), expected["logits"])

    summary = step(trainer, "rn")
    assert_golden(summary.get("ce", summary["loss"]), expected["loss"])
    assert_golden(learner.ctx.grad, expected["grad_ctx"])


@pytest.mark.parametrize("case", cases("plot_nemesis"))
def test_plot_nemesis(case: dict[str, Any], tmp_path: Path, record_property: Record) -> None:
    record_property("golden", "plot_nemesis")
    expected, params = arrays(case["file"]), case["params"]
    opts = ["TRAINER.PLOT.N", params["N"], "TRAINER.PLOT.CSC", params["csc"]]
    trainer = golden_trainer("PLOTNemesis", "rn", tmp_path, *nemesis_options(params), *opts)
    set_prompts(trainer, expected["ctx"])
    fix_positions(trainer, params["positions"])
    model, ctx = trainer.model, trainer.model.prompt_learner.ctx
    trainer.epoch = params["epoch"]
    trainer.before_epoch()

    features = model.image_features(images("rn"))
    logits = model.logits(features, ctx.unsqueeze(0))
    positions = torch.tensor(params["positions"])
    corrupted = model.logits(features, rescale(ctx, positions, params["CW"]))
    assert_golden(torch.cat([logits, corrupted]), expected["corrupt_logits"])
    omega = trainer.norm_penalty.omega
    assert_golden(norm_loss(ctx, torch.full((16,), params["A"])), expected["pun_loss"])
    if params["beta"] < 1:
        alpha = trainer.aware_alpha(features, labels(), logits[0])
        assert torch.equal(alpha / omega * params["A"], expected["alpha"])
        assert_golden(norm_loss(ctx, alpha), expected["pan_loss"])

    set_rate(trainer, 1e-5)
    step(trainer, "rn", epoch=params["epoch"])
    assert_golden(ctx.grad, expected["total_grad"])
    assert_golden(ctx, expected["ctx_after"])


@pytest.mark.parametrize("case", cases("steps_plot"))
def test_steps_plot(case: dict[str, Any], tmp_path: Path, record_property: Record) -> None:
    record_property("golden", "steps_plot")
    expected, params = arrays(case["file"]), case["params"]
    method = params["method"]
    beta = {"plot": 1.0, "pun": 1.0, "pan": 0.0}.get(method.removeprefix("plot") or "plot", 0.3)
    given = {**params, "beta": beta, "positions": params["positions"][0]}
    name = "PLOT" if method == "plot" else "PLOTNemesis"
    trainer = golden_trainer(name, "rn", tmp_path, *nemesis_options(given))
    set_prompts(trainer, expected["ctx0"])
    set_rate(trainer, params["lr"])
    for number, positions in enumerate(params["positions"]):
        fix_positions(trainer, positions)
        summary = step(trainer, "rn", number, params["epoch"])
        assert_golden(summary.get("ce", summary["loss"]), expected["ce_loss"][number])
        assert_golden(trainer.model.prompt_learner.ctx, expected["ctx_after"][number])
