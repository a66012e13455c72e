"""Whether the plain way and ours compute the same: a ratio of two different things says nothing."""

from typing import Any

import torch
from torch import Tensor

from .cases import CASES, TAU, Case, OurSide, PlainSide, Setting
from .plain_methods import PlainCoOp, PlainNemesis
from .synthetic import own_seed

METHODS = ("coop", "pun", "pan1", "pan4", "pan16", "pun_pan", "cocoop", "plot", "plot_pan")


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected entry."""
    scale = expected.detach().abs().max().clamp(min=1e-12)
    return float((actual.detach() - expected.detach()).abs().max() / scale)


def parity(setting: Setting, methods: tuple[str, ...] = METHODS) -> dict[str, float]:
    """Relative differences of text features, logits, losses and gradients, by method and quantity.

    Args:
        setting: the model, the class names and the device.
        methods: keys of `CASES` that are training steps.
    """
    plain, ours = PlainSide(setting), OurSide(setting)
    differences = {}
    for key in methods:
        for quantity, pair in _compare(plain, ours, CASES[key]).items():
            differences[f"{key} {quantity}"] = relative_difference(*pair)
    return differences


def _compare(plain: PlainSide, ours: OurSide, case: Case) -> dict[str, tuple[Tensor, Tensor]]:
    """Pairs (ours, plain) from one step on the same batch with the same prompts."""
    trainer = ours.trainer(case.trainer)
    model = _plain_method(plain, trainer, case)
    images, labels = plain.setting.batch(case.batch)
    with torch.no_grad():
        features = model.image_features(images)
        pairs = {
            "image features": (trainer.model.image_features(images), features),
            "text features": (
                trainer.model.text_features(trainer.model.prompt_learner())[0],
                model.text_features(model.ctx),
            ),
            "logits": (
                trainer.model.logits(features, trainer.model.prompt_learner())[0],
                model.logits(features, model.ctx),
            ),
        }
    with own_seed(1):  # PAN draws its positions alike on both sides
        nemesis = None if case.beta is None else PlainNemesis(case.beta, case.n, TAU)
        loss = model.loss(images, labels, nemesis)
        loss.backward()
    with own_seed(1):
        summary: Any = ours.workload(case)()
    assert model.ctx.grad is not None
    pairs["loss"] = summary["loss"], loss
    pairs["gradient"] = trainer.model.prompt_learner.ctx.grad, model.ctx.grad
    return pairs


def _plain_method(plain: PlainSide, trainer: Any, case: Case) -> PlainCoOp:
    """The plain method with the learned parameters that the trainer has now."""
    learner = trainer.model.prompt_learner
    method = plain.methods.get(case.trainer, PlainCoOp)
    model = method(plain.clip_model, plain.setting.classnames, learner.ctx)
    if hasattr(learner, "meta_net"):
        model.get_submodule("meta_net").load_state_dict(learner.meta_net.state_dict())
    return model
