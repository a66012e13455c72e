"""PUN, PAN, both, and whole steps of CoOp and PLOT against the golden numbers."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.golden.cases import Case, assert_close
from tests.golden.harness import (
    WARM_UP_LR,
    aware_weight,
    case_step,
    case_trainer,
    fix_positions,
    nemesis_trainer,
    set_rate,
)
from trainers.nemesis import (
    NORMS,
    NormPenalty,
    count_correct,
    norm_loss,
    omega_schedule,
    rescale,
    vector_norms,
)


def check_pun(case: Case, root: Path) -> None:
    del root
    expected, params = case.expected, case.params
    ctx = expected["ctx"].clone().requires_grad_()
    p, sets = NORMS[params["norm_type"]], math.prod(ctx.shape[:-2])
    assert_close(vector_norms(ctx, p) / sets, expected["vector_norm_logged"])
    alpha = NormPenalty(omega=params["A"]).uniform(ctx.shape[-2], ctx.device)
    loss = norm_loss(ctx, alpha, p)
    (gradient,) = torch.autograd.grad(loss, ctx)
    assert_close(loss, expected["loss"])
    assert_close(gradient, expected["grad_ctx"])


def check_pan(case: Case, root: Path) -> None:
    trainer = nemesis_trainer(case, "CoOpNemesis", case.expected["ctx"], root)
    _check_pre_inference(trainer, case)
    _check_step(trainer, case)


def check_combined(case: Case, root: Path) -> None:
    trainer = nemesis_trainer(case, "CoOpNemesis", case.expected["ctx"], root)
    _check_step(trainer, case)


def check_plot_nemesis(case: Case, root: Path) -> None:
    expected, params = case.expected, case.params
    trainer = nemesis_trainer(case, "PLOTNemesis", expected["ctx"], root)
    ctx = trainer.model.prompt_learner.ctx
    uniform = torch.full((ctx.shape[-2],), float(params["A"]))
    assert_close(norm_loss(ctx, uniform, _p(params)), expected["pun_loss"])
    _check_pre_inference(trainer, case)
    _check_step(trainer, case)


def _p(params: dict[str, Any]) -> float:
    return NORMS[params.get("norm_type", "two")]


def _check_pre_inference(trainer: Any, case: Case) -> None:
    """The logits of the corrupted prompts, and PAN's alpha and loss."""
    expected, params = case.expected, case.params
    model, ctx = trainer.model, trainer.model.prompt_learner.ctx
    positions = torch.tensor(params["positions"])
    features = model.image_features(case.images())
    groups = torch.cat([ctx.unsqueeze(0), rescale(ctx, positions, params["CW"])])
    logits = model.logits(features, groups)
    assert_close(logits, expected["corrupt_logits"])
    if "correct" in expected:
        assert count_correct(logits, case.labels()).equal(expected["correct"])
    if params["beta"] == 1:  # without PAN, no alpha is recorded
        return
    trainer.epoch = params["epoch"]
    trainer.before_epoch()
    fix_positions(trainer, params["positions"])
    alpha = trainer.aware_alpha(features, case.labels(), logits[0])
    alpha = alpha / trainer.norm_penalty.omega * aware_weight(case)
    assert_close(alpha, expected["alpha"])
    loss = norm_loss(ctx, alpha, _p(params))
    assert_close(loss, expected["pan_loss"])
    if "pan_grad" in expected:
        (gradient,) = torch.autograd.grad(loss, ctx)
        assert_close(gradient, expected["pan_grad"])


def _check_step(trainer: Any, case: Case) -> None:
    """One whole step in the case's epoch."""
    expected, params, penalty = case.expected, case.params, trainer.norm_penalty
    for key in ("omega_used", "omega_schedule"):
        if key in params:
            factor = omega_schedule(params["epoch"], params["max_epoch"], penalty.schedule)
            assert factor == pytest.approx(params[key], abs=1e-12)
    fix_positions(trainer, params["positions"])
    set_rate(trainer, WARM_UP_LR)
    summary = case_step(trainer, case, epoch=params["epoch"])
    ctx = trainer.model.prompt_learner.ctx
    if "ce_loss" in expected:
        assert_close(summary["ce"], expected["ce_loss"])
    assert_close(ctx.grad, expected["total_grad"])
    assert_close(ctx, expected["ctx_after"])
    if penalty.beta < 1:
        _check_selections(trainer, expected["alpha"])


def _check_selections(trainer: Any, alpha: Tensor) -> None:
    """PAN has chosen those positions whose alpha is recorded."""
    counts = torch.tensor(trainer.epoch_entries()["selections"])
    assert counts.bool().equal(alpha.bool())


def check_steps(case: Case, root: Path) -> None:
    expected, params = case.expected, case.params
    trainer = stepping_trainer(case, root)
    ctx, rates = trainer.model.prompt_learner.ctx, params["lr"]
    scheduled = params.get("mode") == "sched"
    if scheduled:
        trainer.num_batches = 1  # every batch ends its epoch
    for number, loss in enumerate(expected["ce_loss"]):
        rate = rates[number] if isinstance(rates, list) else rates
        if not scheduled:
            set_rate(trainer, rate)
        assert trainer.get_current_lr() == pytest.approx(rate, abs=1e-12)
        fix_positions(trainer, params["positions"][number])
        epoch = params["epochs"][number] if "epochs" in params else params["epoch"]
        summary = case_step(trainer, case, number, epoch)
        assert_close(summary["ce"], loss)
        if "grad" in expected:
            assert_close(ctx.grad, expected["grad"][number])
        assert_close(ctx, expected["ctx_after"][number])
        if trainer.norm_penalty and trainer.norm_penalty.beta < 1:
            _check_selections(trainer, expected["alpha"][number])


def stepping_trainer(case: Case, root: Path) -> Any:
    """The trainer that params.method names: the plain method, PUN, PAN, or both by a beta."""
    name, ctx = "PLOT" if case.kind == "steps_plot" else "CoOp", case.expected["ctx0"]
    method = case.params["method"]
    if method == name.lower():
        return case_trainer(case, name, ctx, root)
    beta = next((value for word, value in (("pun", 1.0), ("pan", 0.0)) if word in method), 0.3)
    if (number := re.search(r"\d+(\.\d+)?", method)) is not None:
        beta = float(number[0])
    return nemesis_trainer(case, f"{name}Nemesis", ctx, root, case.params.get("beta", beta))
