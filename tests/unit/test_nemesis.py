"""Properties of the norm losses, of group evaluation and of the transport."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as numpy_arrays
from torch import Tensor
from torch.nn import functional

from tests.golden import images, labels
from tests.golden.harness import golden_trainer, step
from tests.helpers.refusals import refused
from trainers.core.sinkhorn import sinkhorn
from trainers.nemesis import NORMS, NormPenalty, norm_loss, omega_schedule, rescale

LENGTH, WIDTH = 6, 4
FINITE = st.floats(-3, 3, width=32)
PROMPTS = numpy_arrays(
    np.float32, st.sampled_from([(6, 4), (2, 6, 4), (3, 2, 6, 4)]), elements=FINITE
)
NORM = st.sampled_from(sorted(NORMS.values()))


@given(PROMPTS, NORM, st.permutations(range(LENGTH)), st.floats(0, 100))
def test_pun_is_permutation_invariant_and_linear_in_omega(
    values: np.ndarray, p: float, order: list[int], omega: float
) -> None:
    ctx = torch.from_numpy(values).double()
    ones = torch.ones(LENGTH, dtype=torch.float64)
    plain = norm_loss(ctx, ones, p)
    torch.testing.assert_close(norm_loss(ctx[..., order, :], ones, p), plain)
    torch.testing.assert_close(norm_loss(ctx, omega * ones, p), omega * plain)


@given(PROMPTS, NORM, st.sets(st.integers(0, LENGTH - 1)), st.floats(0.1, 50))
def test_pan_by_hand(values: np.ndarray, p: float, chosen: set[int], omega: float) -> None:
    """The mean over the selected positions; no gradient elsewhere; 0 without a selection."""
    ctx = torch.from_numpy(values).double().requires_grad_()
    alpha = torch.zeros(LENGTH, dtype=torch.float64)
    alpha[sorted(chosen)] = omega
    loss = norm_loss(ctx, alpha, p)
    (gradient,) = torch.autograd.grad(loss, ctx)
    others = [j for j in range(LENGTH) if j not in chosen]
    assert not gradient[..., others, :].any()
    if not chosen:
        assert loss.item() == 0
        assert not gradient.any()
        return
    only = ctx.detach()[..., sorted(chosen), :]
    uniform = norm_loss(only, torch.full((len(chosen),), omega, dtype=torch.float64), p)
    torch.testing.assert_close(loss.detach(), uniform)


def test_the_schedule() -> None:
    assert omega_schedule(25, 50) == 0.5
    assert omega_schedule(0, 50) == pytest.approx(1 - 1 / (1 + math.exp(5)))
    assert omega_schedule(49, 50) < 0.01
    assert omega_schedule(49, 50, "constant") == 1


def test_rescale_changes_one_position_of_every_set() -> None:
    ctx = torch.randn(3, 2, LENGTH, WIDTH)
    copies = rescale(ctx, torch.tensor([4, 0]), 0.5)
    assert copies.shape == (2, *ctx.shape)
    torch.testing.assert_close(copies[0, ..., 4, :], ctx[..., 4, :] / 2)
    torch.testing.assert_close(copies[0, ..., :4, :], ctx[..., :4, :])
    torch.testing.assert_close(copies[1, ..., 1:, :], ctx[..., 1:, :])


BAD = [("omega", -1.0), ("omega", math.nan), ("tau", 0.0), ("tau", 1.0), ("n", 0), ("beta", 1.5)]


@pytest.mark.parametrize(("key", "value"), [*BAD, ("norm", "tow"), ("schedule", "linear")])
def test_bad_settings(key: str, value: Any) -> None:
    with refused(key.upper()):
        NormPenalty(**{key: value}).check()


METHODS = [
    *(
        ("CoOpNemesis", "vit", f"CSC {csc} CLASS_TOKEN_POSITION {position}")
        for csc in (False, True)
        for position in ("end", "middle", "front")
    ),
    ("CoCoOpNemesis", "vit", ""),
    ("PLOTNemesis", "vit", "N 2"),
    ("PLOTNemesis", "rn", "CSC True CLASS_TOKEN_POSITION middle"),
]


@pytest.mark.parametrize(("name", "arch", "options"), METHODS)
def test_groups_equal_single_prompts(name: str, arch: str, options: str, tmp_path: Path) -> None:
    node, words = name.removesuffix("Nemesis").upper(), options.split()
    words[::2] = [f"TRAINER.{node}.{key}" for key in words[::2]]
    trainer = golden_trainer(name, arch, tmp_path, *words)
    model, ctx = trainer.model, trainer.model.prompt_learner.ctx
    features = model.image_features(images(arch))
    groups = rescale(ctx, torch.arange(3), 0.5)
    together = model.logits(features, groups)
    alone = torch.cat([model.logits(features, group.unsqueeze(0)) for group in groups])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("number", [1, 5, 16])
@pytest.mark.parametrize("select", [True, False])
def test_pan_steps_with_every_number_of_positions(
    number: int, select: bool, tmp_path: Path
) -> None:
    opts = ["TRAINER.NEMESIS.N", number, "TRAINER.NEMESIS.BETA", 0.0]
    trainer = golden_trainer(
        "CoOpNemesis", "vit", tmp_path, *opts, "TRAINER.NEMESIS.SELECT", select
    )
    trainer.max_epoch = 50
    calls: list[int] = []
    encode = trainer.model.text_encoder.forward

    def counted(ctx: Tensor) -> Tensor:
        calls.append(len(ctx))
        return encode(ctx)

    trainer.model.text_encoder.forward = counted
    summary = step(trainer, "vit")
    assert calls == ([1, number] if select else [1])
    assert {"loss", "ce", "pan", "omega_E", "norm", "acc"} <= set(summary)
    selections = trainer.epoch_entries()["selections"]
    assert sum(selections) <= number
    assert select or sum(selections) == number


def test_a_batch_of_one_image_and_pun_alone(tmp_path: Path) -> None:
    trainer = golden_trainer("CoCoOpNemesis", "vit", tmp_path, "TRAINER.NEMESIS.BETA", 0.5)
    trainer.before_epoch()
    summary = trainer.forward_backward({"img": images("vit")[:1], "label": labels()[:1]})
    assert math.isfinite(summary["loss"])
    (tmp_path / "pun").mkdir()
    trainer = golden_trainer("CoOpNemesis", "vit", tmp_path / "pun")
    trainer.aware_alpha = None  # would fail if it were called
    assert "pun" in step(trainer, "vit")


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_correct_batch_needs_no_pre_inference(wrong: int) -> None:
    ctx, targets = torch.randn(4, 8), torch.arange(3)
    logits = functional.one_hot((targets + wrong * (targets == 0)) % 3).float()
    calls: list[Tensor] = []

    def evaluate(groups: Tensor) -> Tensor:
        calls.append(groups)
        return functional.one_hot(targets).float().expand(len(groups), -1, -1)

    alpha = NormPenalty(n=2).aware(ctx, torch.tensor([3, 1]), targets, logits, evaluate)
    assert len(calls) == wrong
    assert alpha.tolist() == [0.0, wrong, 0.0, wrong]


COST = numpy_arrays(np.float32, (2, 3, 5, 4), elements=st.floats(0, 2, width=32))


@settings(deadline=None)
@given(
    COST,
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    st.sampled_from([0.1, 0.01]),
)
def test_plans_are_finite_and_have_their_column_sums(
    values: np.ndarray, dtype: torch.dtype, eps: float
) -> None:
    plan = sinkhorn(torch.from_numpy(values).to(dtype), eps)
    assert plan.isfinite().all()
    torch.testing.assert_close(plan.sum(-2), torch.full((2, 3, 4), 0.25), atol=1e-5, rtol=1e-4)


def test_sinkhorn_equals_pot() -> None:
    cost = torch.rand(1, 1, 7, 4, generator=torch.Generator().manual_seed(0))
    ours = sinkhorn(cost, 0.1, max_iter=1000, thresh=1e-9)[0, 0]
    plan = ot.sinkhorn(np.full(7, 1 / 7), np.full(4, 1 / 4), cost[0, 0].double().numpy(), 0.1)
    torch.testing.assert_close(ours.double(), torch.from_numpy(plan), atol=1e-6, rtol=1e-4)


def test_a_gradient_scaler_may_skip_the_first_step_of_an_epoch_of_one_batch(tmp_path: Path) -> None:
    """The schedule goes on without PyTorch's warning, which fails tests."""
    trainer = golden_trainer("CoOp", "vit", tmp_path)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    trainer.num_batches = 1
    before = trainer.model.prompt_learner.ctx.detach().clone()
    step(trainer, "vit")
    assert torch.equal(trainer.model.prompt_learner.ctx, before)
    assert trainer.get_current_lr() > 1e-5  # the warm-up is over
