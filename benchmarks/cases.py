"""Benchmark cases as callables, for the reference implementation and the registered trainers.

Images are noise, class names are ImageNet's, prompts are random: none of these affects the cost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from dassl.engine import TRAINER_REGISTRY
from trainers.core.frozen_encoder import autocast
from trainers.nemesis import rescale

from .reference_clip import build_reference_clip
from .reference_lora import ReferenceCLIPLoRA
from .reference_methods import ReferenceCoCoOp, ReferenceCoOp, ReferenceNemesis, ReferencePLOT
from .synthetic import (
    N_CTX,
    PROMPT_SETS,
    Backbone,
    precision_settings,
    random_images,
    random_labels,
    synthetic_trainer,
)

Workload = Callable[[], object]

REFERENCE, REPOSITORY = "plain", "ours"  # "side" in bench.json
SIDES = {REFERENCE: "reference", REPOSITORY: "this repository"}  # with their names in tables
STUDY_IMAGES = 200
TEST_IMAGES = 500
TEST_BATCH = 100
TAU = 0.5
TEXT_LORA = (
    *("TRAINER.CLIPLORA.ENCODER", "text", "TRAINER.CLIPLORA.ITERS_PER_SHOT", 0),
    *("OPTIM.LR_SCHEDULER", "cosine", "OPTIM.NAME", "adamw", "OPTIM.LR", 2e-4),
)


@dataclass(frozen=True)
class Case:
    """One row of the report.

    Attributes:
        title: label of the row.
        kind: method of `ReferenceSide` and `RepositorySide` that makes the workload.
        trainer: name of the registered trainer.
        beta: Nemesis' beta, None without Nemesis.
        n: PAN's N.
        batch: images per training step.
        sets: prompts per class trained at once, for the memory estimate.
        reference_as: case with the same reference workload, which is measured once.
        prompts: prompts per workload of this repository, if seconds are per prompt.
        test_images: images per evaluation.
    """

    title: str
    kind: str = "step"
    trainer: str = "CoOp"
    beta: float | None = None
    n: int = 1
    batch: int = 32
    sets: int = 1
    reference_as: str | None = None
    prompts: int = 1
    test_images: int = TEST_IMAGES

    @property
    def learns(self) -> bool:
        """Whether a backward pass stores the activations of the reference text encoder."""
        return self.kind in ("text_backward", "step", "cached_step")


CASES: dict[str, Case] = {
    "text_forward": Case("text forward", "text_forward"),
    "text_backward": Case("text forward + backward", "text_backward"),
    "text_corrupted": Case("text forward of 16 corrupted prompts", "text_corrupted"),
    "coop": Case("CoOp step"),
    "coop_cached": Case("CoOp step, cached views", "cached_step", reference_as="coop"),
    "pun": Case("PUN step", trainer="CoOpNemesis", beta=1.0),
    **{
        f"pan{n}": Case(f"PAN step, N = {n}", trainer="CoOpNemesis", beta=0.0, n=n)
        for n in (1, 2, 4, 8, 16)
    },
    "pun_pan": Case("PUN + PAN step, N = 1", trainer="CoOpNemesis", beta=0.5),
    "cocoop": Case("CoCoOp step, batch 4", trainer="CoCoOp", batch=4, sets=4),
    "plot": Case("PLOT step", trainer="PLOT", sets=PROMPT_SETS),
    "plot_pan": Case("PLOT + PAN step, N = 1", trainer="PLOTNemesis", beta=0.0, sets=PROMPT_SETS),
    "lora_text": Case("CLIP-LoRA step, text encoder", trainer="CLIPLoRA"),
    "lora_text_cached": Case(
        "CLIP-LoRA step, text encoder, cached views",
        "cached_step",
        trainer="CLIPLoRA",
        reference_as="lora_text",
    ),
    "corruption": Case(
        "corruption study, per prompt", "corruption", prompts=N_CTX + 1, test_images=STUDY_IMAGES
    ),
    "evaluation": Case(f"evaluation, {TEST_IMAGES} images", "evaluation"),
    "evaluation_again": Case(
        "evaluation of a second prompt", "evaluation_again", reference_as="evaluation"
    ),
}


@dataclass(frozen=True)
class Setting:
    """Backbone, class names, device and precision shared by all workloads of a comparison.

    See `precision_settings` for the precision.
    """

    backbone: Backbone
    classnames: Sequence[str]
    device: torch.device
    precision: str = "fp32"

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Return images and labels of a training step."""
        images = random_images(size, self.backbone, self.device)
        return images, random_labels(size, len(self.classnames), self.device)

    def test_batches(self, images: int) -> tuple[Tensor, ...]:
        """Return the images of a test set in batches."""
        return random_images(images, self.backbone, self.device, seed=1).split(TEST_BATCH)


class ReferenceSide:
    """Workloads of the reference implementation; the model is loaded once."""

    methods: ClassVar[dict[str, type[ReferenceCoOp]]] = {
        **{"CoCoOp": ReferenceCoCoOp, "PLOT": ReferencePLOT, "PLOTNemesis": ReferencePLOT},
        "CLIPLoRA": ReferenceCLIPLoRA,
    }

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.clip_model = build_reference_clip(setting.backbone.load(setting.device).model)

    def model(self, case: Case, ctx: Tensor) -> ReferenceCoOp:
        """Return the case's method with these prompts."""
        method = self.methods.get(case.trainer, ReferenceCoOp)
        return method(self.clip_model, self.setting.classnames, ctx)

    def workload(self, case: Case) -> Workload:
        """Return the callable to measure."""
        case = CASES[case.reference_as] if case.reference_as else case
        sets = [case.sets] if case.trainer.startswith("PLOT") else []
        shape = (*sets, N_CTX, self.setting.backbone.config.transformer_width)
        model = self.model(case, 0.02 * torch.randn(shape, device=self.setting.device))
        workload: Workload = getattr(self, f"_{case.kind}")(model, case)
        precision, device = self.setting.precision, self.setting.device
        if precision != "amp":
            return workload

        def run() -> object:
            with autocast(precision, device):
                return workload()

        return run

    def _text_forward(self, model: ReferenceCoOp, _: Case) -> Workload:
        return torch.no_grad()(lambda: model.text_features(model.ctx))

    def _text_backward(self, model: ReferenceCoOp, _: Case) -> Workload:
        return lambda: model.text_features(model.ctx).sum().backward()

    def _text_corrupted(self, model: ReferenceCoOp, _: Case) -> Workload:
        corrupted = rescale(model.ctx.detach(), torch.arange(N_CTX), TAU)
        return torch.no_grad()(lambda: [model.text_features(ctx) for ctx in corrupted])

    def _step(self, model: ReferenceCoOp, case: Case) -> Workload:
        images, labels = self.setting.batch(case.batch)
        nemesis = None if case.beta is None else ReferenceNemesis(case.beta, case.n, TAU)
        return lambda: model.step(images, labels, nemesis)

    def _evaluation(self, model: ReferenceCoOp, case: Case) -> Workload:
        batches = self.setting.test_batches(case.test_images)

        @torch.no_grad()
        def run() -> list[Tensor]:
            text = model.text_features(model.ctx)
            return [model.match(model.image_features(images), text) for images in batches]

        return run

    def _corruption(self, model: ReferenceCoOp, case: Case) -> Workload:
        """Evaluate one corrupted prompt from scratch, as a separate process does."""
        with torch.no_grad():
            model.ctx[0] *= TAU
        return self._evaluation(model, case)


class RepositorySide:
    """The same workloads with the registered trainers; each is built once."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._trainers: dict[str, Any] = {}

    def trainer(self, name: str) -> Any:
        """Return the trainer of this name."""
        if name not in self._trainers:
            one = self.setting
            node = TRAINER_REGISTRY.get(name).node
            opts = (
                *precision_settings(node, one.precision),
                *(TEXT_LORA if name == "CLIPLoRA" else ()),
            )
            trainer = synthetic_trainer(name, one.backbone, one.classnames, one.device, *opts)
            self._trainers[name] = trainer
        return self._trainers[name]

    def workload(self, case: Case) -> Workload:
        """Return the callable to measure."""
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
            if case.beta is not None:  # all Nemesis variants share one trainer
                trainer.norm_penalty = replace(trainer.norm_penalty, beta=case.beta, n=case.n)
            summary: dict[str, Any] = trainer.forward_backward({"img": images, "label": labels})
            return summary

        return run

    def _cached_step(self, trainer: Any, case: Case) -> Workload:
        images, labels = self.setting.batch(case.batch)
        batch = {"features": trainer.model.image_features(images), "label": labels}
        return lambda: trainer.forward_backward(batch)

    def _evaluation(self, trainer: Any, case: Case) -> Workload:
        model, batches = trainer.model, self.setting.test_batches(case.test_images)
        return lambda: match_test_set(model, encode_test_set(model, batches))

    def _evaluation_again(self, trainer: Any, case: Case) -> Workload:
        features = encode_test_set(trainer.model, self.setting.test_batches(case.test_images))
        return lambda: match_test_set(trainer.model, features)

    def _corruption(self, trainer: Any, case: Case) -> Workload:
        """Evaluate all prompts at once on a test set that is encoded once."""
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
    """Compute the image features (B, E) of a test set, as the first evaluation does."""
    return torch.cat([model.image_features(images) for images in batches])


@torch.no_grad()
def match_test_set(model: Any, features: Tensor, ctx: Tensor | None = None) -> Tensor:
    """Compute logits (G, B, C) from image features, as an evaluation with cached features does."""
    return model.logits(features, model.prompt_learner() if ctx is None else ctx)


def make_side(side: str, setting: Setting) -> ReferenceSide | RepositorySide:
    """Return the workloads of the reference implementation or of this repository."""
    return ReferenceSide(setting) if side == REFERENCE else RepositorySide(setting)


def make_workload(key: str, side: str, setting: Setting) -> Workload:
    """Return the callable to measure for a case of `CASES`."""
    return make_side(side, setting).workload(CASES[key])
