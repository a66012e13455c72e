"""What is measured: every case as a callable, the plain way and through the real trainers.

Images are noise, class names are ImageNet's, prompts are random: none of it changes the cost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from trainers.nemesis import rescale

from .plain import PlainCLIP, plain_clip
from .plain_methods import PlainCoCoOp, PlainCoOp, PlainNemesis, PlainPLOT
from .synthetic import (
    N_CTX,
    PROMPT_SETS,
    Backbone,
    random_images,
    random_labels,
    synthetic_trainer,
)

Workload = Callable[[], object]

PLAIN, OURS = "plain", "ours"
SIDES = (PLAIN, OURS)
STUDY_IMAGES = 200
TEST_IMAGES = 500
TEST_BATCH = 100
TAU = 0.5


@dataclass(frozen=True)
class Case:
    """One line of the report.

    Attributes:
        title: what the line says.
        kind: which method of `PlainSide` and `OurSide` makes it.
        trainer: the registered trainer of ours.
        beta: Nemesis' beta, None without Nemesis.
        n: PAN's N.
        batch: images of a training step.
        sets: prompts per class that are trained at once, for the estimate of memory.
        plain_as: the case whose plain workload is this one's, too.
        prompts: in one workload of ours, when seconds are given per prompt.
        test_images: of an evaluation.
    """

    title: str
    kind: str = "step"
    trainer: str = "CoOp"
    beta: float | None = None
    n: int = 1
    batch: int = 32
    sets: int = 1
    plain_as: str | None = None
    prompts: int = 1
    test_images: int = TEST_IMAGES

    @property
    def learns(self) -> bool:
        """Whether a backward pass keeps the activations of the plain text tower."""
        return self.kind in ("text_backward", "step", "cached_step")


def _pan(n: int) -> Case:
    return Case(f"PAN step, N = {n}", trainer="CoOpNemesis", beta=0.0, n=n)


CASES: dict[str, Case] = {
    "text_forward": Case("text forward", "text_forward"),
    "text_backward": Case("text forward + backward", "text_backward"),
    "text_corrupted": Case("text forward of 16 corrupted prompts", "text_corrupted"),
    "coop": Case("CoOp step"),
    "coop_cached": Case("CoOp step, cached views", "cached_step", plain_as="coop"),
    "pun": Case("PUN step", trainer="CoOpNemesis", beta=1.0),
    "pan1": _pan(1),
    "pan2": _pan(2),
    "pan4": _pan(4),
    "pan8": _pan(8),
    "pan16": _pan(16),
    "pun_pan": Case("PUN + PAN step, N = 1", trainer="CoOpNemesis", beta=0.5),
    "cocoop": Case("CoCoOp step, batch 4", trainer="CoCoOp", batch=4, sets=4),
    "plot": Case("PLOT step", trainer="PLOT", sets=PROMPT_SETS),
    "plot_pan": Case("PLOT + PAN step, N = 1", trainer="PLOTNemesis", beta=0.0, sets=PROMPT_SETS),
    "corruption": Case(
        "corruption study, per prompt", "corruption", prompts=N_CTX + 1, test_images=STUDY_IMAGES
    ),
    "evaluation": Case(f"evaluation, {TEST_IMAGES} images", "evaluation"),
    "evaluation_again": Case(
        "evaluation of a second prompt", "evaluation_again", plain_as="evaluation"
    ),
}


@dataclass(frozen=True)
class Setting:
    """What all workloads of a comparison share."""

    backbone: Backbone
    classnames: Sequence[str]
    device: torch.device

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Images and labels of a training step."""
        images = random_images(size, self.backbone, self.device)
        return images, random_labels(size, len(self.classnames), self.device)

    def test_batches(self, images: int) -> tuple[Tensor, ...]:
        """The images of a test set."""
        return random_images(images, self.backbone, self.device, seed=1).split(TEST_BATCH)


class PlainSide:
    """The textbook's workloads; the model is loaded once."""

    methods = {"CoCoOp": PlainCoCoOp, "PLOT": PlainPLOT, "PLOTNemesis": PlainPLOT}

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.clip_model: PlainCLIP = plain_clip(setting.backbone.load(setting.device).model)

    def workload(self, case: Case) -> Workload:
        """What is timed."""
        case = CASES[case.plain_as] if case.plain_as else case
        sets = (case.sets,) if case.trainer.startswith("PLOT") else ()
        shape = (*sets, N_CTX, self.setting.backbone.config.transformer_width)
        ctx = 0.02 * torch.randn(shape, device=self.setting.device)
        method = self.methods.get(case.trainer, PlainCoOp)
        model = method(self.clip_model, self.setting.classnames, ctx)
        workload: Workload = getattr(self, f"_{case.kind}")(model, case)
        return workload

    def _text_forward(self, model: PlainCoOp, _: Case) -> Workload:
        return torch.no_grad()(lambda: model.text_features(model.ctx))

    def _text_backward(self, model: PlainCoOp, _: Case) -> Workload:
        return lambda: model.text_features(model.ctx).sum().backward()

    def _text_corrupted(self, model: PlainCoOp, _: Case) -> Workload:
        corrupted = rescale(model.ctx.detach(), torch.arange(N_CTX), TAU)
        return torch.no_grad()(lambda: [model.text_features(ctx) for ctx in corrupted])

    def _step(self, model: PlainCoOp, case: Case) -> Workload:
        images, labels = self.setting.batch(case.batch)
        nemesis = None if case.beta is None else PlainNemesis(case.beta, case.n, TAU)
        return lambda: model.step(images, labels, nemesis)

    def _evaluation(self, model: PlainCoOp, case: Case) -> Workload:
        batches = self.setting.test_batches(case.test_images)

        @torch.no_grad()
        def run() -> list[Tensor]:
            text = model.text_features(model.ctx)
            return [model.match(model.image_features(images), text) for images in batches]

        return run

    def _corruption(self, model: PlainCoOp, case: Case) -> Workload:
        """One corrupted prompt: a process of its own evaluates it as any other prompt."""
        with torch.no_grad():
            model.ctx[0] *= TAU
        return self._evaluation(model, case)


class OurSide:
    """The same through the registered trainers; each is built once."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._trainers: dict[str, Any] = {}

    def trainer(self, name: str) -> Any:
        """The trainer of this name."""
        if name not in self._trainers:
            setting = self.setting
            self._trainers[name] = synthetic_trainer(
                name, setting.backbone, setting.classnames, setting.device
            )
        return self._trainers[name]

    def workload(self, case: Case) -> Workload:
        """What is timed."""
        workload: Workload = getattr(self, f"_{case.kind}")(self.trainer(case.trainer), case)
        return workload

    def _text_forward(self, trainer: Any, _: Case) -> Workload:
        model = trainer.model
        return torch.no_grad()(lambda: model.text_features(model.prompt_learner()))

    def _text_backward(self, trainer: Any, _: Case) -> Workload:
        model = trainer.model
        return lambda: model.text_features(model.prompt_learner()).sum().backward()

    def _text_corrupted(self, trainer: Any, _: Case) -> Workload:
        model = trainer.model
        ctx = model.prompt_learner.ctx.detach()
        corrupted = rescale(ctx, torch.arange(N_CTX, device=ctx.device), TAU)
        return torch.no_grad()(lambda: model.text_features(corrupted))

    def _step(self, trainer: Any, case: Case) -> Workload:
        images, labels = self.setting.batch(case.batch)

        def run() -> dict[str, Any]:
            if case.beta is not None:  # one trainer serves every variant
                trainer.norm_penalty = replace(trainer.norm_penalty, beta=case.beta, n=case.n)
            summary: dict[str, Any] = trainer.forward_backward({"img": images, "label": labels})
            return summary

        return run

    def _cached_step(self, trainer: Any, case: Case) -> Workload:
        images, labels = self.setting.batch(case.batch)
        features = trainer.model.image_features(images)

        def run() -> None:
            loss, _ = trainer.loss(features, labels)
            trainer.model_backward_and_update(loss)

        return run

    def _evaluation(self, trainer: Any, case: Case) -> Workload:
        batches = self.setting.test_batches(case.test_images)

        def run() -> Tensor:
            return match_test_set(trainer.model, encode_test_set(trainer.model, batches))

        return run

    def _evaluation_again(self, trainer: Any, case: Case) -> Workload:
        batches = self.setting.test_batches(case.test_images)
        features = encode_test_set(trainer.model, batches)
        return lambda: match_test_set(trainer.model, features)

    def _corruption(self, trainer: Any, case: Case) -> Workload:
        """All prompts at once; the test set is encoded for them all."""
        batches = self.setting.test_batches(case.test_images)
        ctx = trainer.model.prompt_learner.ctx.detach()
        corrupted = rescale(ctx, torch.arange(N_CTX, device=ctx.device), TAU)
        groups = torch.cat([ctx.unsqueeze(0), corrupted])

        def run() -> Tensor:
            features = encode_test_set(trainer.model, batches)
            return match_test_set(trainer.model, features, groups)

        return run


@torch.no_grad()
def encode_test_set(model: Any, batches: Sequence[Tensor]) -> Tensor:
    """Image features (B, E) of a test set, as a first evaluation computes them."""
    return torch.cat([model.image_features(images) for images in batches])


@torch.no_grad()
def match_test_set(model: Any, features: Tensor, ctx: Tensor | None = None) -> Tensor:
    """Logits (G, B, C) of encoded images, as an evaluation that finds them in a cache does."""
    return model.logits(features, model.prompt_learner() if ctx is None else ctx)


def make_side(side: str, setting: Setting) -> PlainSide | OurSide:
    """The plain side or ours."""
    return PlainSide(setting) if side == PLAIN else OurSide(setting)
