"""Compare the cost of training prompts in both towers with a reference implementation.

Both sides run the same step, with the reference implementation's encoders or this repository's.
The settings are those published for MaPLe and PromptSRC: depth 9, batch 4.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from clip.deep_prompts import DeepPromptEncoder
from clip.model import CLIP
from clip.prompted_vision import PromptedImageEncoder
from safeio.errors import UserError
from trainers.core.frozen_encoder import freeze, speed_up

from .cases import REFERENCE, REPOSITORY, SIDES, Setting, Workload
from .cost import add_measuring_flags, check
from .measure import GIB, Effort, Peak, peak_memory, time_by_turns
from .reference_clip import build_reference_clip
from .reference_towers import ReferenceTowers
from .report import Report, environment, measured_with, table
from .synthetic import Backbone, class_names, own_seed

DEPTH, BATCH = 9, 4
TEXT_WEIGHT, IMAGE_WEIGHT = 25.0, 10.0  # PromptSRC's
COLUMNS = ("what", "reference", "this repository", "ratio", "target", "met")
NOTES = f"""\
Depth {DEPTH}, batch {BATCH}. With 2 text vectors, the words "of a" follow them. MaPLe has 2 vectors
and one linear map per layer. PromptSRC has 4 + 4 vectors; the reference encodes the images a second
time for its teacher, this repository uses cached teacher features (INPUT.TRAIN_VIEWS); both compute
the teacher's text features once. Rounds alternate between the sides; a ratio is the median over the
rounds' ratios. Memory is the peak of one step above the loaded model, in a new process."""


class Towers(nn.Module):
    """This repository's encoders, with the calls of `ReferenceTowers`."""

    def __init__(
        self, clip_model: CLIP, classnames: Sequence[str], length: int, words_behind: str
    ) -> None:
        super().__init__()
        self.clip_model = clip_model
        self.texts = DeepPromptEncoder(clip_model, classnames, length, words_behind)
        self.images = PromptedImageEncoder(clip_model)


class TwoTowerStep:
    """A training step on either side's encoders, and its parts."""

    def __init__(self, side: str, setting: Setting, length: int) -> None:
        config, device = setting.backbone.config, setting.device
        clip_model = setting.backbone.load(device).model
        freeze(clip_model)
        speed_up(clip_model.visual)
        arguments = setting.classnames, length, "of a" if length == 2 else ""
        self.cached_teacher = side == REPOSITORY
        self.towers: Any = (
            Towers(clip_model, *arguments)
            if side == REPOSITORY
            else ReferenceTowers(build_reference_clip(clip_model), *arguments)
        )
        self.scale = clip_model.logit_scale.exp()
        self.inputs, self.labels = setting.batch(BATCH)
        widths = config.transformer_width, config.vision_width
        with own_seed(0):
            drawn = [0.02 * torch.randn(DEPTH, length, width) for width in widths]
            couplings = [nn.Linear(*widths) for _ in range(DEPTH)]
            self.teacher_texts = torch.randn(len(setting.classnames), config.embed_dim).to(device)
        self.text, self.vision = (nn.Parameter(one.to(device)) for one in drawn)
        self.couplings = nn.ModuleList(couplings).to(device)
        self.teacher_images = self._teacher()

    @torch.no_grad()
    def _teacher(self) -> Tensor:
        features: Tensor = self.towers.images(self.inputs, self.vision[:0])
        return features

    def text_part(self) -> None:
        """Run the text encoder forward and backward."""
        self.towers.texts(self.text).sum().backward()

    def features(self, vision: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised image features (B, E) and text features (C, E)."""
        encoded = self.towers.images(self.inputs, vision), self.towers.texts(self.text)
        image, text = (functional.normalize(features, dim=-1) for features in encoded)
        return image, text

    def maple_loss(self) -> Tensor:
        """Return the cross-entropy of MaPLe."""
        vision = [layer(vectors) for layer, vectors in zip(self.couplings, self.text, strict=True)]
        image, text = self.features(torch.stack(vision))
        return functional.cross_entropy(self.scale * image @ text.t(), self.labels)

    def promptsrc_loss(self) -> Tensor:
        """Return the cross-entropy of PromptSRC and its three regularisers."""
        image, text = self.features(self.vision)
        teacher = self.teacher_images if self.cached_teacher else self._teacher()
        teacher_image = functional.normalize(teacher, dim=-1)
        teacher_text = functional.normalize(self.teacher_texts, dim=-1)
        logits = self.scale * image @ text.t()
        targets = (self.scale * teacher_image @ teacher_text.t()).log_softmax(-1)
        divergence = functional.kl_div(
            logits.log_softmax(-1), targets, reduction="sum", log_target=True
        )
        return (
            functional.cross_entropy(logits, self.labels)
            + TEXT_WEIGHT * functional.l1_loss(text, teacher_text)
            + IMAGE_WEIGHT * functional.l1_loss(image, teacher_image)
            + divergence / logits.numel()
        )

    def step(self, loss: Callable[[], Tensor], learned: Sequence[nn.Parameter]) -> Workload:
        """Return an optimisation step of these parameters."""
        optimiser = torch.optim.SGD(learned, lr=0.0035, momentum=0.9, weight_decay=5e-4)

        def run() -> float:
            value = loss()
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            return value.item()

        return run

    def maple(self) -> Workload:
        """Return MaPLe's step."""
        return self.step(self.maple_loss, [self.text, *self.couplings.parameters()])

    def promptsrc(self) -> Workload:
        """Return PromptSRC's step."""
        return self.step(self.promptsrc_loss, [self.text, self.vision])


@dataclass(frozen=True)
class TowerCase:
    """A row of the report: its title, method of `TwoTowerStep`, text vectors and target."""

    title: str
    method: str
    length: int
    target: float


CASES = {
    "text2": TowerCase("text part, 2 vectors and 2 words", "text_part", 2, 12),
    "text4": TowerCase("text part, 4 vectors", "text_part", 4, 12),
    "maple": TowerCase("MaPLe step", "maple", 2, 2.5),
    "promptsrc": TowerCase("PromptSRC step, cached views", "promptsrc", 4, 3),
}
MEMORY = TowerCase("memory of a MaPLe step", "maple", 2, 3)


def make_workload(case: TowerCase, side: str, setting: Setting) -> Workload:
    """Return the callable to measure."""
    step = TwoTowerStep(side, setting, case.length)
    if case.method == "text_part":
        return step.text_part
    workload: Workload = getattr(step, case.method)()
    return workload


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument("--classes", nargs=1, type=int, metavar="C", help="default 100")
    add_measuring_flags(parser.add_argument)


def run(arguments: argparse.Namespace) -> Report:
    """Measure all cases on a vision transformer, by default ViT-B/16.

    Raises:
        UserError: a number is too small, the device is not available, the backbone is unknown, has
            a ResNet or fewer layers than the prompts' depth.
    """
    device, names = check(arguments), arguments.backbones or ["ViT-B/16"]
    backbone = Backbone.find(names[0])
    layers = backbone.config.vision_layers
    if len(names) > 1 or not isinstance(layers, int) or layers < DEPTH:
        raise UserError(
            f"towers measures one backbone with a vision transformer of {DEPTH} layers or more, "
            "such as ViT-B/16"
        )
    classes = (arguments.classes or [100])[0]
    effort = Effort(arguments.repetitions or 5, 120.0, arguments.threads)
    settings = {"backbone": backbone.name, "classes": classes}
    settings |= environment(device, threads=effort.threads, repetitions=effort.repetitions)
    torch.set_num_threads(effort.threads)
    rows = measure(Setting(backbone, class_names(classes), device), effort)
    shown = [
        [*(row[key] for key in ("what", *SIDES, "ratio", "target")), "yes" if row["met"] else "no"]
        for row in rows
    ]
    title = "Seconds of a training step, and GiB"
    parts = [
        "# Cost of prompts in both towers",
        measured_with(settings),
        table("towers", title, COLUMNS, shown),
        NOTES,
    ]
    return Report("towers", parts, {"rows": rows, "settings": settings})


def measure(setting: Setting, effort: Effort) -> list[dict[str, Any]]:
    """Measure the cases one after the other, the sides of each alternately."""
    rows = []
    with tqdm(total=len(CASES) + 1, disable=None) as bar:
        peaks = {}
        for side in SIDES:
            make = partial(make_workload, MEMORY, side, setting)
            peak = peak_memory(make, setting.device, effort.threads)
            if not isinstance(peak, Peak):
                raise UserError(f"The step of the {SIDES[side]} {peak}")
            peaks[side] = [peak.above / GIB]
        bar.update()
        for case in CASES.values():
            workloads = {side: make_workload(case, side, setting) for side in SIDES}
            rows.append(_row(case, time_by_turns(workloads, effort, setting.device)))
            bar.update()
        return [*rows, _row(MEMORY, peaks)]


def _row(case: TowerCase, measured: dict[str, list[float]]) -> dict[str, Any]:
    rounds = zip(*(measured[side] for side in (REFERENCE, REPOSITORY)), strict=False)
    ratio = median(plain / ours for plain, ours in rounds)
    return {
        "what": case.title,
        **{side: median(values) for side, values in measured.items()},
        "ratio": ratio,
        "target": case.target,
        "met": ratio >= case.target,
        "runs": measured,
    }
