"""CoOp against the golden numbers: prompts, features, logits, loss and gradient."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn
from torch.nn import functional

from tests.golden import arrays, assert_golden, cases, images, index, labels, tiny_clip
from tests.oracle import plain_prompts
from trainers.prompt_learner import PromptLearner
from trainers.prompted_clip import PromptedCLIP


@pytest.mark.parametrize("case", cases("coop"))
def test_coop(case: dict[str, Any], record_property: Callable[[str, object], None]) -> None:
    record_property("golden", "coop")
    expected, params = arrays(case["file"]), case["params"]
    classes = index()["classes"]
    learner = PromptLearner(
        model := tiny_clip(case["arch"]),
        len(classes),
        n_ctx=params["n_ctx"],
        ctx_init=params["ctx_init"],
        class_specific=params["ctx"] == "csc",
    )
    if params["ctx_init"]:
        assert_golden(learner.ctx, expected["ctx"])
    assert learner.ctx.shape == expected["ctx"].shape
    learner.ctx = nn.Parameter(expected["ctx"].clone())
    prompted = PromptedCLIP(model, classes, learner, params["class_token_position"])

    prompts = plain_prompts(model, classes, learner.ctx, params["class_token_position"])
    assert_golden(prompts, expected["prompts"])
    text = prompted.text_encoder(learner())
    assert_golden(text[0], expected["text_features"])
    raw = prompted.clip_model.encode_image(images(case["arch"]))
    assert_golden(raw, expected["image_features"])

    logits = prompted(images(case["arch"]))
    loss = functional.cross_entropy(logits, labels())
    loss.backward()
    assert learner.ctx.grad is not None
    assert_golden(logits, expected["logits"])
    assert_golden(loss, expected["loss"])
    assert_golden(learner.ctx.grad, expected["grad_ctx"])
    assert all(parameter.grad is None for parameter in prompted.clip_model.parameters())
