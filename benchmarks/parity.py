"""Check that the reference implementation and this repository compute the same."""

from typing import Any

import torch
from torch import Tensor

from .cases import CASES, TAU, Case, ReferenceSide, RepositorySide, Setting
from .reference_methods import ReferenceCoOp, ReferenceNemesis
from .synthetic import own_seed

METHODS = ("coop", "pun", "pan1", "pan4", "pan16", "pun_pan", "cocoop", "plot", "plot_pan")


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest expected entry."""
    scale = expected.detach().abs().max().clamp(min=1e-12)
    return float((actual.detach() - expected.detach()).abs().max() / scale)


def parity(setting: Setting, methods: tuple[str, ...] = METHODS) -> dict[str, float]:
    """Compute relative differences of features, logits, losses and gradients by case and quantity.

    The methods are keys of `CASES` that are training steps.
    """
    reference, repository = ReferenceSide(setting), RepositorySide(setting)
    differences = {}
    for key in methods:
        for quantity, pair in _compare(reference, repository, CASES[key]).items():
            differences[f"{key} {quantity}"] = relative_difference(*pair)
    return differences


def _compare(
    reference: ReferenceSide, repository: RepositorySide, case: Case
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return (this repository, reference) pairs of one step with the same batch and prompts."""
    trainer = repository.trainer(case.trainer)
    model = _reference_method(reference, trainer, case)
    images, labels = reference.setting.batch(case.batch)
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
    with own_seed(1):  # PAN draws the same positions on both sides
        nemesis = None if case.beta is None else ReferenceNemesis(case.beta, case.n, TAU)
        loss = model.loss(images, labels, nemesis)
        loss.backward()
    with own_seed(1):
        summary: Any = repository.workload(case)()
    assert model.ctx.grad is not None
    pairs["loss"] = summary["loss"], loss
    pairs["gradient"] = trainer.model.prompt_learner.ctx.grad, model.ctx.grad
    return pairs


def _reference_method(reference: ReferenceSide, trainer: Any, case: Case) -> ReferenceCoOp:
    """Build the reference method with the trainer's current parameters."""
    learner = trainer.model.prompt_learner
    model = reference.model(case, learner.ctx)
    if hasattr(learner, "meta_net"):
        model.get_submodule("meta_net").load_state_dict(learner.meta_net.state_dict())
    return model
