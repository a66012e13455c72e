"""KgCoOp, ProGrad, TCP and Nemesis on the three against the golden numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from clip.errors import PromptError
from clip.simple_tokenizer import tokenizer
from tests.golden.cases import Case, assert_close
from tests.golden.harness import fix_positions, golden_trainer, set_rate
from trainers.nemesis import NORMS, count_correct, norm_loss, rescale

METHODS = {"kgcoop": "KgCoOp", "prograd": "ProGrad", "tcp": "TCP"}
MODES = ("lr002", "sched")


def build(case: Case, root: Path, name: str, own_start: bool = False, **settings: Any) -> Any:
    """A trainer with a case's settings, and its learned tensors unless it starts by itself."""
    params, method = case.params, name.removesuffix("Nemesis")
    shape = start(case)["ctx"].shape
    opts: dict[str, Any] = {"TEACHER": template(case), "N_CTX": shape[-2]}
    if method == "ProGrad":
        opts |= {"T": params["T"], "LAMBDA": params["LAMBDA"]}
    else:
        opts["W"] = params.get("kg_weight", params.get("W"))
    if method == "TCP":
        opts |= {"INSERT_LAYER": params["insert_layer"], "BLEND": params.get("blend", 1.0)}
        opts["STUDENT"] = params.get("template", f"X X X X {{}}{params.get('suffix', '.')}")
    else:
        opts["CSC"] = len(shape) == 3
    opts = {f"TRAINER.{method.upper()}.{key}": value for key, value in opts.items()}
    opts |= {"DATASET.CLASSNAMES": names(case), "OPTIM.MAX_EPOCH": params["max_epoch"]}
    if params.get("method", case.kind) == "tcp":
        eps = params.get("adam_eps", 1e-3)
        opts |= {"OPTIM.NAME": params.get("optimizer", "adam"), "OPTIM.ADAM_EPS": eps}
    if name != method:
        settings |= {"TRAINER.NEMESIS.N": len(params["positions"])}
        for key in ("omega", "beta", "tau", "norm"):
            settings[f"TRAINER.NEMESIS.{key.upper()}"] = params[key]
    pairs = [item for pair in (opts | settings).items() for item in pair]
    trainer = golden_trainer(name, case.arch, root, *pairs, source=case.folder)
    with torch.no_grad():
        for key, parameter in learned(trainer).items():
            if not own_start:
                parameter.copy_(start(case)[key])
    return trainer


def words_of(tokens: Tensor) -> list[int]:
    """The token ids of a prompt between SOS and EOS."""
    return tokens[1 : int(tokens.argmax())].tolist()


def fixed_words(case: Case) -> str:
    """The words between the context and the name: the template's last one behind a comma."""
    if case.kind == "tcp" or case.params.get("suffix", ".") != ".":
        return ""
    ids = words_of(case.expected["tokenized_prompts"][0])[start(case)["ctx"].shape[-2] :]
    name = tokenizer().encode(f"{case.classes[0].replace('_', ' ')}.")
    return tokenizer().decode(ids[: len(ids) - len(name)]).strip()


def names(case: Case) -> list[str]:
    """The class names, behind the words that stand before them in the prompts."""
    return [f"{fixed_words(case)} {name}".strip() for name in case.classes]


def template(case: Case) -> str:
    """The teacher's template for `names`."""
    text = tokenizer().decode(words_of(case.expected["teacher_tokens"][0]))
    return text.replace(names(case)[0], "{}", 1).strip()


def start(case: Case) -> dict[str, Tensor]:
    """The learned tensors before the first step, by their name in the prompt learner."""
    expected = case.expected
    named = {key[6:]: value for key, value in expected.items() if key.startswith("param.")}
    return named or {"ctx": expected["ctx"]}


def grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def learned(trainer: Any) -> dict[str, Tensor]:
    return dict(trainer.model.prompt_learner.named_parameters())


def own_labels(case: Case, number: int = 0) -> Tensor:
    labels = case.expected.get("labels")
    if labels is None:
        return case.labels(number)
    return labels if labels.dim() == 1 else labels[number]


def step(trainer: Any, case: Case, number: int = 0, epoch: int = 0) -> dict[str, Any]:
    trainer.epoch = epoch
    trainer.before_epoch()
    batch = {"img": case.images(number), "label": own_labels(case, number)}
    return trainer.forward_backward(batch)


def check_features(trainer: Any, case: Case) -> None:
    """The teacher, the text features and the logits, also those of an evaluation."""
    expected, model = case.expected, trainer.model
    assert_close(model.teacher, expected["teacher_features"])
    with torch.no_grad():
        features = model.image_features(case.images())
        text = model.text_features(model.prompt_learner())[0]
        raw = functional.normalize(expected["text_features"], dim=-1)
        assert_close(text, raw)
        assert_close(model.logits(features, model.prompt_learner())[0], expected["logits"])
        with trainer.cached_text_features():
            assert_close(trainer.model_inference(case.images()), expected["logits"])


def check_steps(case: Case, root: Path, name: str, losses: dict[str, str]) -> None:
    """Three steps at one rate, and with the schedule; `losses` maps recorded to logged ones."""
    expected = case.expected
    for mode in MODES:
        trainer, scheduled = build(case, root, name), mode == "sched"
        if scheduled:
            trainer.num_batches = 1  # every batch ends its epoch
        for number, rate in enumerate(expected[f"steps_{mode}.lr"].tolist()):
            if not scheduled:
                set_rate(trainer, rate)
            assert trainer.get_current_lr() == pytest.approx(rate, abs=1e-12)
            summary = step(trainer, case, number, number if scheduled else 0)
            for key, logged in losses.items():
                assert_close(summary[logged], expected[f"steps_{mode}.{key}"][number])
            if f"steps_{mode}.grad" in expected:
                gradient = trainer.model.prompt_learner.ctx.grad
                assert_close(gradient, expected[f"steps_{mode}.grad"][number])
            for key, parameter in learned(trainer).items():
                assert_close(parameter, expected[f"steps_{mode}.{key}"][number])


def check_kgcoop(case: Case, root: Path) -> None:
    expected, params = case.expected, case.params
    if params["ctx_init"]:
        made = build(case, root, "KgCoOp", True, **{"TRAINER.KGCOOP.CTX_INIT": params["ctx_init"]})
        assert_close(made.model.prompt_learner.ctx, expected["ctx"])
    trainer = build(case, root, "KgCoOp")
    check_features(trainer, case)
    check_knowledge(trainer, case)
    check_steps(case, root, "KgCoOp", {"loss": "loss"})


def check_knowledge(trainer: Any, case: Case) -> None:
    """Both parts of the loss, and their gradients."""
    expected, model, tensors = case.expected, trainer.model, learned(trainer)
    prefix = "grad_ctx" if case.kind == "kgcoop" else "grad"
    logits, score = model.training_outputs(
        model.image_features(case.images()), model.prompt_learner()
    )
    ce = functional.cross_entropy(logits[0], own_labels(case))
    parts = {"ce": ce, "kg": score[0]}
    for part, value in parts.items():
        gradients = torch.autograd.grad(
            value, list(tensors.values()), retain_graph=True, materialize_grads=True
        )
        for key, gradient in zip(tensors, gradients, strict=True):
            recorded = f"grad_ctx_{part}" if case.kind == "kgcoop" else f"grad_{part}.{key}"
            if recorded in expected:
                assert_close(gradient, expected[recorded])
    summary = step(trainer, case)
    for ours, theirs in (("loss", "loss"), ("ce", "ce_loss"), ("kg", "kg_score")):
        assert_close(summary[ours], expected[theirs])
    for key, parameter in tensors.items():
        recorded = prefix if case.kind == "kgcoop" else f"grad.{key}"
        assert_close(grad(parameter), expected[recorded])


def check_prograd(case: Case, root: Path) -> None:
    expected, params = case.expected, case.params
    if params["init"].startswith("words"):
        made = build(case, root, "ProGrad", True, **{"TRAINER.PROGRAD.WORDS": True})
        assert_close(made.model.prompt_learner.ctx, expected["ctx"])
    trainer = build(case, root, "ProGrad")
    check_features(trainer, case)
    logits = trainer.model.teacher_logits(trainer.model.image_features(case.images()))
    assert_close(logits, expected["teacher_logits"])
    summary = step(trainer, case)
    assert_close(summary["ce"], expected["xe_loss"])
    assert_close(summary["kl"], expected["kl_loss"])
    assert bool(summary["projected"]) == params["conflict"]
    assert_close(trainer.model.prompt_learner.ctx.grad, expected["grad_used"])
    check_steps(case, root, "ProGrad", {"xe_loss": "ce", "kl_loss": "kl"})


def check_tcp(case: Case, root: Path) -> None:
    """A layer that the encoder does not reach is refused; without it, TCP is KgCoOp with Adam."""
    expected, params, name = case.expected, case.params, "TCP"
    if params["insert_layer"] >= len(case.clip().transformer.blocks):
        with pytest.raises(PromptError, match="INSERT_LAYER"):
            build(case, root, name)
        if not params["template"].endswith("{}."):
            return
        name = "KgCoOp"
    elif params["init"] == "words":
        made = build(case, root, name, True, **{"TRAINER.TCP.CTX_INIT": "a photo of a"})
        assert_close(made.model.prompt_learner.ctx, expected["param.ctx"])
    trainer = build(case, root, name)
    if name == "TCP":
        tokens = trainer.model.prompt_learner.class_tokens(trainer.model.teacher)
        assert_close(tokens, expected["class_tokens"])
    check_features(trainer, case)
    check_knowledge(trainer, case)
    check_steps(case, root, name, {"loss": "loss"})


def check_nemesis_on(case: Case, root: Path) -> None:
    expected, params = case.expected, case.params
    plain = build(case, root, METHODS[params["method"]])
    summary = step(plain, case, epoch=params["epoch"])
    assert_close(summary["ce"], expected["ce_loss"])
    assert_close(summary["loss"], expected["method_loss"])
    for key, parameter in learned(plain).items():
        assert_close(grad(parameter), expected[f"method_grad.{key}"])
    trainer = build(case, root, f"{METHODS[params['method']]}Nemesis")
    check_norm_losses(trainer, case)
    summary = step(trainer, case, epoch=params["epoch"])
    assert summary["omega_E"] == pytest.approx(params["omega_E"])
    assert_close(summary["loss"], expected["method_loss"] + expected["norm_loss"])
    for key, parameter in learned(trainer).items():
        assert_close(grad(parameter), expected[f"total_grad.{key}"])


def check_norm_losses(trainer: Any, case: Case) -> None:
    """The corrupted prompts' logits, PAN's alpha, and both norm losses."""
    expected, params, model = case.expected, case.params, trainer.model
    ctx, positions = model.prompt_learner.ctx, torch.tensor(params["positions"])
    features = model.image_features(case.images())
    logits = model.logits(features, torch.cat([ctx[None], rescale(ctx, positions, params["tau"])]))
    assert_close(logits, expected["corrupt_logits"])
    assert count_correct(logits, own_labels(case)).equal(expected["correct"])
    fix_positions(trainer, params["positions"])
    trainer.epoch = params["epoch"]
    trainer.before_epoch()
    alpha, p = trainer.aware_alpha(features, own_labels(case), logits[0]), NORMS[params["norm"]]
    assert_close(alpha, expected["alpha"])
    uniform = trainer.norm_penalty.uniform(ctx.shape[-2], ctx.device)
    assert_close(norm_loss(ctx, alpha, p), expected["pan_loss"])
    assert_close(norm_loss(ctx, uniform, p), expected["pun_loss"])
    loss, _ = trainer.penalty(features, own_labels(case), logits[0])
    (gradient,) = torch.autograd.grad(loss, ctx)
    assert_close(loss, expected["norm_loss"])
    assert_close(gradient, expected["norm_grad"])
