"""Compare features, gradients and methods with the reference implementation on the CPU."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from datasets.emoji import concepts_of
from trainers.core.frozen_encoder import autocast

from ..cases import Setting
from ..parity import METHODS, parity, relative_difference
from ..reference_clip import build_reference_clip
from ..reference_methods import ReferenceCoOp
from ..synthetic import (
    N_CTX,
    Backbone,
    batch_of_runs,
    class_names,
    precision_settings,
    random_images,
    synthetic_trainer,
)
from .findings import Findings, Size

CPU = torch.device("cpu")
POSITIONS = ("end", "middle", "front")
REPETITIONS = 4


@cache
def stored(name: str, folder: Path) -> Backbone:
    """Return a backbone whose random weights are in a file, since drawing them takes seconds.

    Its residual branches, which begin at zero in a ResNet, take part.
    """
    backbone = Backbone.find(name)
    if not backbone.weights.startswith("random:"):
        return backbone
    model = backbone.load(CPU).model
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    for key in weights:
        if key.endswith("bn3.weight"):
            weights[key].fill_(0.3)
    path = folder / f"{name.replace('/', '_')}.safetensors"
    save_file(weights, path)
    return Backbone(name, str(path), backbone.config)


def trainer_of(
    size: Size, backbone: Backbone, classes: int, precision: str, position: str = "end"
) -> Any:
    """Return a CoOp trainer with a precision of `Size.precisions`."""
    return synthetic_trainer(
        *("CoOp", backbone, class_names(classes), size.device),
        *precision_settings("COOP", precision),
        *("TRAINER.COOP.CLASS_TOKEN_POSITION", position),
    )


def parity_with_cpu(size: Size, findings: Findings) -> None:
    """Compare both encoders in all precisions, and the methods in fp32."""
    names = ("mini",) if size.tiny else ("ViT-B/16", "RN50")
    classes = class_names(4 if size.tiny else 20)
    backbones = [stored(name, size.folder) for name in names]
    reference = build_reference_clip(backbones[0].load(CPU).model)
    for position in POSITIONS:
        ctx = 0.05 * torch.randn(N_CTX, backbones[0].config.transformer_width)
        method = ReferenceCoOp(reference, classes, ctx, position)
        features = method.text_features(method.ctx)
        weights = torch.randn(features.shape)
        (gradient,) = torch.autograd.grad((features * weights).sum(), method.ctx)
        for precision in size.precisions:
            trainer = partial(trainer_of, size, backbones[0], len(classes), precision, position)
            name = f"text, {position}, {precision}"
            findings.measure(name, _compare_text, trainer, ctx, weights, features, gradient)
    for backbone in backbones:
        images = random_images(8, backbone, CPU)
        with torch.no_grad():
            visual = build_reference_clip(backbone.load(CPU).model).visual
            expected = functional.normalize(visual(images), dim=-1)
        for precision in size.precisions:
            trainer = partial(trainer_of, size, backbone, 2, precision)
            name = f"images, {backbone.name}, {precision}"
            findings.measure(name, _compare_images, trainer, images, expected)
    # Classes of words that `mini` does not know would tie, and rounding decide what PAN selects.
    known = [concept.name for concept in concepts_of("food")[:4]]
    setting = Setting(backbones[0], known if size.tiny else classes[:10], size.device)
    methods = ("coop", "pan4", "plot") if size.tiny else METHODS
    findings.measure("steps, fp32, both on the device", _compare_methods, setting, methods)


def _compare_text(
    make_trainer: Callable[[], Any],
    ctx: Tensor,
    weights: Tensor,
    features: Tensor,
    gradient: Tensor,
) -> dict[str, float]:
    trainer = make_trainer()
    own = ctx.to(trainer.device).requires_grad_()
    with autocast(trainer.clip_precision, trainer.device):
        found = trainer.model.text_features(own.unsqueeze(0))[0].float()
    (slope,) = torch.autograd.grad((found * weights.to(found.device)).sum(), own)
    return {
        "features": relative_difference(found.cpu(), features),
        "gradient": relative_difference(slope.cpu(), gradient),
    }


def _compare_images(
    make_trainer: Callable[[], Any], images: Tensor, expected: Tensor
) -> dict[str, float]:
    trainer = make_trainer()
    with autocast(trainer.clip_precision, trainer.device):
        found = trainer.model.image_features(images.to(trainer.device))
    return {"features": relative_difference(found.float().cpu(), expected)}


def _compare_methods(setting: Setting, methods: tuple[str, ...]) -> dict[str, float]:
    differences = parity(setting, methods)
    return {
        method: max(value for key, value in differences.items() if key.startswith(f"{method} "))
        for method in methods
    }


def determinism(size: Size, findings: Findings) -> None:
    """Repeat a step of a batch with the same inputs and compare its bits."""
    backbone = stored("mini" if size.tiny else "ViT-B/16", size.folder)
    for position in POSITIONS:
        for precision in size.precisions:
            classes = 5 if size.tiny else 100
            trainer = partial(trainer_of, size, backbone, classes, precision, position)
            findings.measure(f"step, {position}, {precision}", _repeat, trainer)


def _repeat(make_trainer: Callable[[], Any]) -> dict[str, bool]:
    prompts, inputs = batch_of_runs(make_trainer(), [None], 32)
    start, found = prompts.ctx.detach().clone(), []
    for _ in range(REPETITIONS):
        with torch.no_grad():
            prompts.ctx.copy_(start)
        prompts.momenta.zero_()
        prompts.step(inputs)
        found.append(prompts.ctx.detach().clone())
    return {"same bits": all(torch.equal(found[0], one) for one in found)}
