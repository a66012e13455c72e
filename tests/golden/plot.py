"""PLOT's optimal transport against the golden numbers."""

from pathlib import Path

import torch
from torch.nn import functional

from tests.golden.cases import Case, assert_close
from tests.golden.harness import case_step, case_trainer
from tests.helpers.oracle import reference_prompts
from trainers.core.sinkhorn import sinkhorn


def check_plot(case: Case, root: Path) -> None:
    expected, params = case.expected, case.params
    settings = {"EPS": params["eps"], "MAX_ITER": params["max_iter"], "THRESH": params["thresh"]}
    opts = [item for key, value in settings.items() for item in (f"TRAINER.PLOT.{key}", value)]
    trainer = case_trainer(case, "PLOT", expected["ctx"], root, *opts)
    model, learner = trainer.model, trainer.model.prompt_learner
    ctx = learner.ctx

    position = params.get("class_token_position", "end")
    prompts = [reference_prompts(case.clip(), case.classes, c, position) for c in ctx.unbind(-3)]
    assert_close(torch.cat(prompts), expected["prompts"])
    features, text = model.image_features(case.images()), model.text_features(learner())
    local = functional.normalize(expected["image_features"], dim=-1)
    assert_close(features, local.transpose(0, 1))
    assert_close(text[0].flatten(0, 1), functional.normalize(expected["text_features"], dim=-1))
    similarity = model.similarities(features, text)
    assert_close(similarity[0].flatten(0, 1), expected["sim"])
    plan = sinkhorn(1 - similarity, params["eps"], params["max_iter"], params["thresh"])
    plan = plan[0].flatten(0, 1)
    assert_close(plan, expected["T"])
    assert_close(plan.sum(-1), expected["T_row_sum"])
    assert_close(plan.sum(-2), expected["T_col_sum"])
    assert_close(model(case.images()), expected["logits"])

    assert_close(case_step(trainer, case)["loss"], expected["loss"])
    assert_close(ctx.grad, expected["grad_ctx"])
