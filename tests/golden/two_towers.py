"""VPT, IVLP, MaPLe and PromptSRC against the golden numbers, through the real trainers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clip.clip import tokenize
from tests.golden.cases import Case
from tests.golden.harness import case_step, golden_trainer, set_rate
from trainers.core.promptsrc_teacher import read_templates, template_features
from trainers.core.two_towers import FIXED_WORDS
from trainers.promptsrc import gaussian_weights

TRAINERS = {"vpt": "VPT", "ivlp": "IVLP", "maple": "MaPLe", "promptsrc": "PromptSRC"}
KEYS = {
    **{"n_text": "N_CTX_TEXT", "n_vision": "N_CTX_VISION", "n_ctx": "N_CTX"},
    **{"depth_text": "PROMPT_DEPTH_TEXT", "depth_vision": "PROMPT_DEPTH_VISION"},
    **{"depth": "PROMPT_DEPTH", "ctx_init": "CTX_INIT", "text_weight": "TEXT_LOSS_WEIGHT"},
    **{"image_weight": "IMAGE_LOSS_WEIGHT", "gpa_mean": "GPA_MEAN", "gpa_std": "GPA_STD"},
}
AFTER_STEPS = 2e-6


def close(actual: Tensor, expected: Tensor, tolerance: float = 2e-5) -> None:
    """Equal within the tolerance times the largest magnitude, at least 1."""
    atol = tolerance * max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(actual.detach().float(), expected.float(), atol=atol, rtol=0)


def parts(case: Case, prefix: str) -> dict[str, Tensor]:
    """The arrays of one kind by the name of their parameter."""
    start = f"{prefix}."
    found = {key: value for key, value in case.expected.items() if key.startswith(start)}
    return {key.removeprefix(start): value for key, value in found.items()}


def tower_trainer(case: Case, root: Path, classes: list[str], *opts: Any) -> Any:
    """The trainer of a case; `root` is its own folder."""
    root.mkdir(exist_ok=True)
    params, name = case.params, TRAINERS[case.kind.removesuffix("_epochs")]
    node = f"TRAINER.{name.upper()}"
    settings = {f"{node}.{key}": params[name] for name, key in KEYS.items() if name in params}
    settings |= {"OPTIM.MOMENTUM": params["momentum"], "OPTIM.WEIGHT_DECAY": params["weight_decay"]}
    settings |= {"OPTIM.LR": params["lr"], "DATASET.CLASSNAMES": classes}
    pairs = [item for pair in settings.items() for item in pair]
    return golden_trainer(name, case.arch, root, *pairs, *opts, source=case.folder)


def start(case: Case, trainer: Any) -> Any:
    """Load the case's initial prompts; those from words are the trainer's own."""
    learner, given = trainer.model.prompt_learner, parts(case, "init")
    drawn = learner.state_dict()
    assert {key: one.shape for key, one in drawn.items()} == {k: v.shape for k, v in given.items()}
    words = case.params.get("ctx_init", "")
    if words and len(given["text.0"]) <= 4:
        close(drawn["text.0"], given["text.0"])
    learner.load_state_dict(given)
    return trainer


def compare(trainer: Any, expected: dict[str, Tensor]) -> None:
    for key, value in trainer.model.prompt_learner.state_dict().items():
        close(value, expected[key], AFTER_STEPS)


def check_method(case: Case, root: Path) -> None:
    expected, params = case.expected, case.params
    trainer = start(case, tower_trainer(case, root / "train", case.classes))
    _check_forward(trainer, case)

    set_rate(trainer, params["lr"])
    for number, loss in enumerate(expected["losses"]):
        summary = case_step(trainer, case, number)
        close(summary["loss"], loss)
        if number == 0:
            _check_first_step(trainer, case, summary)
    compare(trainer, parts(case, "step3"))
    _check_final(trainer, case, root)


def _check_forward(trainer: Any, case: Case) -> None:
    """The tokens, the features of both encoders, and the logits."""
    expected, model, learner = case.expected, trainer.model, trainer.model.prompt_learner
    _check_tokens(trainer, case)
    with torch.no_grad():
        close(model.text_encoder(learner())[0], expected["text_features"])
        vision = learner.vision_prompts()
        for layer, prompts in parts(case, "vision_prompts").items():
            close(vision[int(layer)], prompts)
        features = model.image_encoder(case.images(), vision)
        close(features, expected["image_features"])
        close(model(case.images()), expected["logits"])


def _check_tokens(trainer: Any, case: Case) -> None:
    """The class name and fixed words are in their places behind the learned vectors."""
    rows = case.expected["tokenized_prompts"].tolist()
    if not len(trainer.model.prompt_learner.text):
        texts = [f"{FIXED_WORDS} {name.replace('_', ' ')}." for name in case.classes]
        assert tokenize(texts).tolist() == rows
        return
    for (ids, slots), row in zip(trainer.model.text_encoder.prompts, rows, strict=True):
        assert slots == [*range(1, 1 + len(slots))]
        behind = 1 + len(slots)
        assert ids[behind:] == row[behind : len(ids)]
        assert ids[0] == row[0] and not any(row[len(ids) :])


def _check_first_step(trainer: Any, case: Case, summary: dict[str, Any]) -> None:
    expected = case.expected
    close(summary["ce"], expected["loss_ce"])
    close(summary["loss"], expected["loss"])
    for name in ("loss_text", "loss_image", "loss_logits"):
        if name in expected:
            close(summary[name], expected[name])
    for name, parameter in trainer.model.prompt_learner.named_parameters():
        assert parameter.grad is not None
        close(parameter.grad, expected[f"grad.{name}"])
    assert all(one.grad is None for one in trainer.model.clip_model.parameters())
    compare(trainer, parts(case, "step1"))
    if "teacher_logits" in expected:
        teacher, clip_model = trainer.view_encoder, trainer.loaded_clip.model
        _check_teacher_text(case, clip_model)
        images = teacher.image_features(case.images())
        close(images, torch.nn.functional.normalize(expected["teacher_image_features"], dim=-1))
        logits = clip_model.logit_scale.exp() * images @ teacher.text_features.T
        close(logits, expected["teacher_logits"])


def _check_final(trainer: Any, case: Case, root: Path) -> None:
    """The logits of the learned prompts, also from a checkpoint for the other classes."""
    with torch.no_grad():
        close(trainer.model(case.images()), case.expected["logits_after"])
    trainer.save_model(0, trainer.output_dir)
    sets = case.folder.index["class_sets"]
    other = tower_trainer(case, root / "transfer", sets[case.params["transfer_class_set"]])
    other.load_model(trainer.output_dir, epoch=1)
    other.set_model_mode("eval")
    with torch.no_grad():
        close(other.model_inference(case.images()), case.expected["logits_transfer"])


def check_epochs(case: Case, root: Path) -> None:
    """Whole epochs with Gaussian aggregation."""
    expected, params = case.expected, case.params
    opts = ["OPTIM.MAX_EPOCH", params["max_epoch"]]
    opts += [] if params["warmup"] else ["OPTIM.WARMUP_EPOCH", -1]
    trainer = start(case, tower_trainer(case, root / "train", case.classes, *opts))
    mean, std = float(params["gpa_mean"]), float(params["gpa_std"])
    weights = gaussian_weights(params["max_epoch"], mean, std)
    assert weights.tolist() == pytest.approx(expected["gauss"].tolist(), abs=1e-12)
    trainer.before_train()
    trainer.close_writer()
    trainer.num_batches = expected["losses"].shape[1]
    for epoch, losses in enumerate(expected["losses"]):
        assert trainer.get_current_lr() == pytest.approx(float(expected["lr"][epoch]), rel=1e-6)
        for trainer.batch_idx, loss in enumerate(losses):
            close(case_step(trainer, case, trainer.batch_idx, epoch)["loss"], loss)
        compare(trainer, {key: one[epoch] for key, one in parts(case, "epoch_ends").items()})
        trainer.aggregate()
    compare(trainer, parts(case, "aggregated"))
    _check_final(trainer, case, root)


def check_teacher(case: Case, root: Path) -> None:
    del root
    clip_model, expected = case.clip(), case.expected
    _check_teacher_text(case, clip_model)
    close(clip_model.encode_image(case.images()), expected["teacher_image_features"])


def _check_teacher_text(case: Case, clip_model: Any) -> None:
    expected = case.expected
    templates = read_templates()
    each = [template_features(clip_model, case.classes, template) for template in templates]
    features = torch.stack(each, dim=1)
    close(features.mean(1), expected["teacher_text_features"])
    if "tokenized_templates" in expected:
        close(features, expected["text_features_by_template"])
        for name, rows in zip(case.classes, expected["tokenized_templates"], strict=True):
            prompts = [template.format(name.replace("_", " ")) for template in templates]
            assert tokenize(prompts).tolist() == rows.tolist()


def check_weights(case: Case, root: Path) -> None:
    del root
    for epochs, mean, std in case.params["sets"]:
        expected = case.expected[f"max{epochs}_mean{mean}_std{std}"]
        ours = gaussian_weights(epochs, float(mean), float(std)).tolist()
        assert ours == pytest.approx(expected.tolist(), rel=1e-9, abs=1e-15)


def check_templates(record: Any) -> None:
    assert read_templates() == record
