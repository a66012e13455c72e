"""PUN, PAN, both, and whole steps of CoOp against the golden numbers, through the real trainer."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.golden import arrays, assert_golden, cases, images, labels
from tests.golden_trainer import (
    batch,
    fix_positions,
    golden_trainer,
    nemesis_options,
    set_prompts,
    set_rate,
    step,
)
from trainers.nemesis import NORMS, NormPenalty, count_correct, norm_loss, rescale, vector_norms

Record = Callable[[str, object], None]


def _trainer(params: dict[str, Any], folder: Path, name: str = "CoOpNemesis") -> Any:
    opts = [*nemesis_options(params), "TRAINER.COOP.CSC", bool(params["csc"])]
    trainer = golden_trainer(name, "vit", folder, *opts)
    # The functions compute tau >= 1, too; only the configuration refuses it.
    if "CW" in params and name != "CoOp":
        trainer.norm_penalty = dataclasses.replace(trainer.norm_penalty, tau=params["CW"])
    return trainer


@pytest.mark.parametrize("case", cases("pun"))
def test_pun(case: dict[str, Any], record_property: Record) -> None:
    record_property("golden", "pun")
    expected, params = arrays(case["file"]), case["params"]
    ctx = expected["ctx"].clone().requires_grad_()
    p = NORMS[params["norm_type"]]
    sets = len(ctx) if params["csc"] else 1
    assert_golden(vector_norms(ctx, p) / sets, expected["vector_norm_logged"])
    alpha = NormPenalty(omega=params["A"]).uniform(ctx.shape[-2], ctx.device)
    loss = norm_loss(ctx, alpha, p)
    (gradient,) = torch.autograd.grad(loss, ctx)
    assert_golden(loss, expected["loss"])
    assert_golden(gradient, expected["grad_ctx"])


@pytest.mark.parametrize("case", cases("pan"))
def test_pan(case: dict[str, Any], tmp_path: Path, record_property: Record) -> None:
    record_property("golden", "pan")
    expected, params = arrays(case["file"]), case["params"]
    trainer = _trainer(params, tmp_path)
    set_prompts(trainer, expected["ctx"])
    fix_positions(trainer, params["positions"])
    trainer.epoch = params["epoch"]
    trainer.before_epoch()

    model, ctx = trainer.model, trainer.model.prompt_learner.ctx
    features = model.image_features(images("vit"))
    logits = model.logits(features, ctx.unsqueeze(0))
    corrupted = model.logits(
        features, rescale(ctx, torch.tensor(params["positions"]), params["CW"])
    )
    assert_golden(torch.cat([logits, corrupted]), expected["corrupt_logits"])
    assert torch.equal(count_correct(torch.cat([logits, corrupted]), labels()), expected["correct"])
    alpha = trainer.aware_alpha(features, labels(), logits[0])
    assert torch.equal(alpha, expected["alpha"])
    loss = norm_loss(ctx, alpha, NORMS[params["norm_type"]])
    (gradient,) = torch.autograd.grad(loss, ctx)
    assert_golden(loss, expected["pan_loss"])
    assert_golden(gradient, expected["pan_grad"])

    set_rate(trainer, 1e-5)
    summary = trainer.forward_backward(batch("vit"))
    assert_golden(summary.get("ce", summary["loss"]), expected["ce_loss"])
    assert_golden(ctx.grad, expected["total_grad"])
    assert_golden(ctx, expected["ctx_after"])


@pytest.mark.parametrize("case", cases("combined"))
def test_combined(case: dict[str, Any], tmp_path: Path, record_property: Record) -> None:
    record_property("golden", "combined")
    expected, params = arrays(case["file"]), case["params"]
    trainer = _trainer(params, tmp_path)
    set_prompts(trainer, expected["ctx"])
    fix_positions(trainer, params["positions"])
    set_rate(trainer, 1e-5)
    summary = step(trainer, "vit", epoch=params["epoch"])
    ctx = trainer.model.prompt_learner.ctx
    assert_golden(summary.get("ce", summary["loss"]), expected["ce_loss"])
    assert_golden(ctx.grad, expected["total_grad"])
    assert_golden(ctx, expected["ctx_after"])
    if params["beta"] < 1:
        selected = torch.nonzero(expected["alpha"]).flatten().tolist()
        counts = trainer.epoch_entries()["selections"]
        assert [j for j, count in enumerate(counts) if count] == selected


@pytest.mark.parametrize("case", cases("steps"))
def test_steps(case: dict[str, Any], tmp_path: Path, record_property: Record) -> None:
    record_property("golden", "steps")
    expected, params = arrays(case["file"]), case["params"]
    method = params["method"]
    beta = {"coop": 1.0, "pun": 1.0, "pan": 0.0, "beta0.3": 0.3}[method]
    given = {**params, "beta": beta, "positions": params["positions"][0]}
    trainer = _trainer(given, tmp_path, "CoOp" if method == "coop" else "CoOpNemesis")
    set_prompts(trainer, expected["ctx0"])
    ctx = trainer.model.prompt_learner.ctx
    for number, epoch in enumerate(params["epochs"]):
        if params["mode"] == "lr002":
            set_rate(trainer, params["lr"][number])
        else:
            trainer.num_batches = 1  # every batch ends its epoch
        assert trainer.get_current_lr() == pytest.approx(params["lr"][number], abs=1e-12)
        fix_positions(trainer, params["positions"][number])
        summary = step(trainer, "vit", number, epoch)
        assert_golden(summary.get("ce", summary["loss"]), expected["ce_loss"][number])
        assert_golden(ctx.grad, expected["grad"][number])
        assert_golden(ctx, expected["ctx_after"][number])
