"""Corrupted prompts against the golden numbers: the vectors, and the logits under them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.golden import arrays, assert_golden, cases, images, index, tiny_clip
from trainers.corruption import REPLACE, RESCALE, Corruption, corrupt, replace
from trainers.prompt_learner import PromptLearner
from trainers.prompted_clip import PromptedCLIP


def corrupted(ctx: Tensor, params: dict[str, Any], expected: dict[str, Tensor]) -> Tensor:
    """The case's prompts as one group, made by the functions of the study."""
    noise = torch.zeros(ctx.shape[-2:])
    if params["type"] == RESCALE:
        return corrupt(ctx, [Corruption(RESCALE, params["factor"], params["position"])], noise)
    if params["type"] == REPLACE:
        drawn = expected["replacement"]
        given = replace(ctx, torch.tensor([params["position"]]), drawn.unsqueeze(0))
        if params["std"]:
            drawn = drawn / params["std"]
        noise[params["position"]] = drawn
        ours = corrupt(ctx, [Corruption(REPLACE, params["std"], params["position"])], noise)
        torch.testing.assert_close(ours, given)
        return given
    return ctx.unsqueeze(0)


@pytest.mark.parametrize("case", cases("crt"))
def test_crt(case: dict[str, Any], record_property: Callable[[str, object], None]) -> None:
    record_property("golden", "crt")
    expected, params = arrays(case["file"]), case["params"]
    inputs = arrays("inputs.npz")
    names = ("ctx_generic", "ctx_generic5", "ctx_csc")
    learned = next(inputs[n] for n in names if inputs[n].shape == expected["ctx"].shape)
    model, classes = tiny_clip(case["arch"]), index()["classes"]
    learner = PromptLearner(
        model, len(classes), n_ctx=learned.shape[-2], class_specific=learned.dim() == 3
    )
    learner.ctx = nn.Parameter(learned.clone())
    prompted = PromptedCLIP(model, classes, learner)

    groups = corrupted(learned, params, expected)
    assert_golden(groups[0], expected["ctx"])
    with torch.no_grad():
        features = prompted.image_features(images(case["arch"]))
        assert_golden(prompted.logits(features, groups)[0], expected["logits"])
