"""CLIP itself, CoOp, corrupted prompts and CoCoOp against the golden numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from clip.clip import tokenize
from nemesis.low_norm.corruption import REPLACE, RESCALE, Corruption, corrupt, replace
from tests.golden.cases import Case, assert_close
from tests.golden.harness import case_step, case_trainer, set_rate
from tests.helpers.oracle import reference_prompts
from trainers.core.prompt_learner import PromptLearner


def check_clip_forward(case: Case, root: Path) -> None:
    del root
    model, expected = case.clip(), case.expected
    assert_close(model.encode_image(case.images()), expected["image_features"])
    assert_close(model.encode_text(expected["tokens"]), expected["text_features"])
    per_image, per_text = model(case.images(), expected["tokens"])
    assert_close(per_image, expected["logits_per_image"])
    assert_close(per_text, expected["logits_per_text"])
    template = case.params.get("prompt") or f"{case.params['ctx_init']} {{}}."
    prompts = [template.format(name.replace("_", " ")) for name in case.classes]
    assert tokenize(prompts).tolist() == expected["tokens"].tolist()
    if "local_features_MBD" in expected:
        local = model.encode_image_local(case.images())
        assert_close(local.transpose(0, 1), expected["local_features_MBD"])


def check_coop(case: Case, root: Path) -> None:
    expected, words = case.expected, case.params["ctx_init"]
    trainer = case_trainer(case, "CoOp", expected["ctx"], root)
    model, ctx = trainer.model, trainer.model.prompt_learner.ctx
    if words:
        own = expected["ctx"].dim() == 3
        start = PromptLearner(case.clip(), len(case.classes), 0, words, own).ctx
        assert_close(start, expected["ctx"])

    position = case.params["class_token_position"]
    assert_close(reference_prompts(case.clip(), case.classes, ctx, position), expected["prompts"])
    assert_close(model.text_encoder(model.prompt_learner())[0], expected["text_features"])
    assert_close(model.clip_model.encode_image(case.images()), expected["image_features"])
    logits = model(case.images())
    loss = functional.cross_entropy(logits, case.labels())
    (gradient,) = torch.autograd.grad(loss, ctx)
    assert_close(logits, expected["logits"])
    assert_close(loss, expected["loss"])
    assert_close(gradient, expected["grad_ctx"])
    assert_close(case_step(trainer, case)["loss"], expected["loss"])
    assert_close(ctx.grad, expected["grad_ctx"])
    assert all(parameter.grad is None for parameter in model.clip_model.parameters())


def check_crt(case: Case, root: Path) -> None:
    expected = case.expected
    learned = _learned(case)
    trainer = case_trainer(case, "CoOp", learned, root)
    groups = _corrupted(learned, case.params, expected)
    assert_close(groups[0], expected["ctx"])
    with torch.no_grad():
        features = trainer.model.image_features(case.images())
        assert_close(trainer.model.logits(features, groups)[0], expected["logits"])


def _learned(case: Case) -> Tensor:
    """The prompts of inputs.npz that differ from the corrupted ones only at one position."""
    corrupted, position = case.expected["ctx"], case.params.get("position")
    others = [j for j in range(corrupted.shape[-2]) if j != position]
    for key, ctx in case.folder.inputs.items():
        same_shape = key.startswith("ctx") and ctx.shape == corrupted.shape
        if same_shape and torch.allclose(ctx[..., others, :], corrupted[..., others, :]):
            return ctx
    raise AssertionError("inputs.npz does not contain the prompts that the case has corrupted")


def _corrupted(ctx: Tensor, params: dict[str, Any], expected: dict[str, Tensor]) -> Tensor:
    """The case's prompts as one group, made by the functions of the study."""
    if params["type"] == "original":
        return ctx.unsqueeze(0)
    noise, position = torch.zeros(ctx.shape[-2:]), params["position"]
    if params["type"] == RESCALE:
        return corrupt(ctx, [Corruption(RESCALE, params["factor"], position)], noise)
    assert params["type"] == REPLACE
    drawn = expected["replacement"]
    given = replace(ctx, torch.tensor([position]), drawn.unsqueeze(0))
    noise[position] = drawn / params["std"] if params["std"] else drawn
    ours = corrupt(ctx, [Corruption(REPLACE, params["std"], position)], noise)
    torch.testing.assert_close(ours, given)
    return given


def check_cocoop(case: Case, root: Path) -> None:
    expected = case.expected
    for memory in (4.0, 1e-9):  # states stored for the gradient, or computed twice
        trainer, parameters = _cocoop(case, root, "MODEL.CLIP.TEXT_MEMORY", memory)
        features = trainer.model.image_features(case.images())
        assert_close(features, expected["image_features_normed"])
        shift = trainer.model.prompt_learner.shift(features)[:, 0]
        assert_close(shift, expected["meta_bias"])
        with torch.no_grad():
            assert_close(trainer.model(case.images()), expected["logits"])
        assert_close(case_step(trainer, case)["loss"], expected["loss"])
        for name, parameter in parameters.items():
            assert parameter.grad is not None
            assert_close(parameter.grad, expected[f"grad.{name}"])
    for mode in ("lr002", "sched"):
        if f"steps_{mode}_loss" in expected:
            _check_cocoop_steps(case, root, mode)


def _cocoop(case: Case, root: Path, *opts: Any) -> tuple[Any, dict[str, Tensor]]:
    """The trainer with the case's prompts and meta-net, and its parameters."""
    expected = case.expected
    trainer = case_trainer(case, "CoCoOp", expected["param.ctx"], root, *opts)
    parameters = dict(trainer.model.prompt_learner.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(expected[f"param.{name}"])
    return trainer, parameters


def _check_cocoop_steps(case: Case, root: Path, mode: str) -> None:
    expected, scheduled = case.expected, mode == "sched"
    trainer, parameters = _cocoop(case, root)
    if scheduled:
        trainer.num_batches = 1  # every batch ends its epoch
    for number, loss in enumerate(expected[f"steps_{mode}_loss"]):
        rate = float(expected[f"steps_{mode}_lr"][number])
        if not scheduled:
            set_rate(trainer, rate)
        assert trainer.get_current_lr() == pytest.approx(rate, abs=1e-12)
        summary = case_step(trainer, case, number, number if scheduled else 0)
        assert_close(summary["loss"], loss)
        for name, parameter in parameters.items():
            assert_close(parameter, expected[f"steps_{mode}.{name}"][number])
