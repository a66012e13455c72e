"""Prompts in both encoders: start values, the norm losses, checkpoints and refused settings."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.golden.cases import DATA, VIT3, GoldenFolder
from tests.golden.harness import golden_trainer
from tests.helpers.refusals import refused
from tests.helpers.tower_oracle import PlainTowers, better_positions, halved, norm_losses
from trainers.core.two_towers import TEXT, VISION, Shape, TowerPrompts, split_words

SOURCE = GoldenFolder(DATA / "golden_two_towers")
LAYERS = 3  # of both encoders
TAU, OMEGA, BETA = 0.1, 2.0, 0.3
NEMESIS: tuple[Any, ...] = (
    *("TRAINER.NEMESIS.TAU", TAU, "TRAINER.NEMESIS.OMEGA", OMEGA, "TRAINER.NEMESIS.BETA", BETA),
    *("TRAINER.NEMESIS.N", 2, "TRAINER.NEMESIS.SCHEDULE", "constant"),
)


def node(method: str, **settings: Any) -> tuple[Any, ...]:
    group = method.removesuffix("Nemesis").upper()
    return tuple(part for k, v in settings.items() for part in (f"TRAINER.{group}.{k}", v))


def build(name: str, root: Path, *opts: Any, **settings: Any) -> Any:
    root.mkdir(exist_ok=True)
    return golden_trainer(name, VIT3, root, *node(name, **settings), *opts, source=SOURCE)


BOTH = {"N_CTX_TEXT": 2, "N_CTX_VISION": 3, "PROMPT_DEPTH_TEXT": 2, "PROMPT_DEPTH_VISION": 2}
METHODS: dict[str, dict[str, int]] = {
    "VPTNemesis": {"N_CTX_VISION": 3, "PROMPT_DEPTH_VISION": 2},
    "IVLPNemesis": BOTH,
    "MaPLeNemesis": {"N_CTX": 3, "PROMPT_DEPTH": 3},
    "PromptSRCNemesis": {**BOTH, "PROMPT_DEPTH_TEXT": 3},
}


# So many that some change their class with the prompts' norms.
IMAGES = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Oracle:
    """A trainer's method in float64, with its present prompts."""

    def __init__(self, trainer: Any) -> None:
        learner = trainer.model.prompt_learner
        words = trainer.words(trainer.cfg)[1] if len(learner.text) else "a photo of a"
        length = len(learner.text[0]) if len(learner.text) else 0
        self.plain = PlainTowers(SOURCE.clip(VIT3), SOURCE.index["classes"], length, words)
        self.learned = {key: one.detach().double() for key, one in learner.learned().items()}
        self.coupling = [
            (one.weight.detach().double(), one.bias.detach().double()) for one in learner.coupling
        ]

    def logits(self, **changed: Tensor) -> Tensor:
        prompts = {**self.learned, **changed}
        text = prompts.get(TEXT, torch.empty(0, 0, 32))
        vision = prompts.get(VISION, torch.empty(0, 0, 64)).double()
        if self.coupling:
            pairs = zip(text, self.coupling, strict=True)
            vision = torch.stack([one @ weight.T + bias for one, (weight, bias) in pairs])
        return self.plain.logits(IMAGES, text.double(), vision)


def make_visible(trainer: Any) -> None:
    """Give the prompts norms at which an epsilon of a layer norm is nothing."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in trainer.model.prompt_learner.parameters():
            parameter.copy_(torch.randn(parameter.shape))


@pytest.mark.parametrize("layers", ["all", "scale_bearing"])
@pytest.mark.parametrize("name", METHODS)
def test_norm_losses_equal_those_by_hand(name: str, layers: str, tmp_path: Path) -> None:
    """PUN, PAN's choice, and the gradients of both on every learned tensor."""
    trainer = build(name, tmp_path, *NEMESIS, "TRAINER.NEMESIS.LAYERS", layers, **METHODS[name])
    make_visible(trainer)
    trainer.before_epoch()
    drawn = {TEXT: [1, 0], VISION: [2, 0]}
    trainer.draw_tower = lambda tower, length: torch.tensor(drawn[tower])
    oracle, clean = Oracle(trainer), Oracle(trainer).logits()
    # Labels that the first corrupted prompts of the last encoder predict best.
    corrupted = {}
    for tower, prompts in oracle.learned.items():
        own = counted(name, tower, layers, len(prompts))
        groups = [halved(prompts, own, position, TAU) for position in drawn[tower]]
        corrupted[tower] = [oracle.logits(**{tower: group}) for group in groups]
    labels = corrupted[tower][0].argmax(-1)
    assert (clean.argmax(-1) != labels).any()

    total: Tensor = torch.zeros(())
    chosen: list[float] = []
    leaves = {key: one.requires_grad_() for key, one in oracle.learned.items()}
    for tower, prompts in leaves.items():
        alpha = torch.zeros(prompts.shape[1], dtype=torch.float64)
        alpha[better_positions(clean, corrupted[tower], labels, drawn[tower])] = OMEGA
        own = counted(name, tower, layers, len(prompts))
        uniform = norm_losses(prompts, own, torch.full_like(alpha, OMEGA))
        total = total + BETA * uniform + (1 - BETA) * norm_losses(prompts, own, alpha)
        chosen += [float(bool(value)) for value in alpha]
    gradients = torch.autograd.grad(total, list(leaves.values()))

    step = trainer.tower_step({"img": IMAGES, "label": labels})
    torch.testing.assert_close(step.logits.double(), clean, atol=2e-3, rtol=0)
    ours, summary = trainer.step_penalty(step)
    others = trainer.regulation(step) if name == "PromptSRCNemesis" else {}
    ours = ours - sum(others.values())
    assert ours.item() == pytest.approx(total.item(), rel=1e-5)
    assert trainer._selections.tolist() == chosen and any(chosen)
    assert {"pun", "pan", "omega_E"} <= set(summary)
    parameters = list(trainer.model.prompt_learner.parameters())
    found = torch.autograd.grad(ours, parameters, allow_unused=True)
    named = [key for key, _ in trainer.model.prompt_learner.named_parameters()]
    for key, gradient in zip(named, found, strict=True):
        tower, layer = key.split(".")[:2]
        if tower == "coupling":
            assert gradient is None or not gradient.any()
            continue
        expected = dict(zip(leaves, gradients, strict=True))[tower][int(layer)]
        actual = torch.zeros_like(expected) if gradient is None else gradient.double()
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def counted(name: str, tower: str, layers: str, depth: int) -> list[int]:
    """The layers on which the losses act."""
    if layers == "all" or name == "MaPLeNemesis":
        return list(range(depth))
    last = [depth - 1] if depth < LAYERS else []
    return sorted({0, *last}) if tower == TEXT else last


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_scale_bearing_prompts_are_those_whose_norm_matters(depth: int, tmp_path: Path) -> None:
    """Halving all prompts of a layer changes the logits there, and elsewhere by the norm's eps."""
    settings = {"PROMPT_DEPTH_TEXT": depth, "PROMPT_DEPTH_VISION": depth}
    trainer = build("IVLP", tmp_path, **settings)
    make_visible(trainer)
    oracle = Oracle(trainer)
    clean = oracle.logits()
    for tower, prompts in oracle.learned.items():
        for layer in range(depth):
            changed = prompts.clone()
            changed[layer] /= 2
            moved = (oracle.logits(**{tower: changed}) - clean).abs().max()
            assert (moved > 0.01) == (layer in trainer.model.scale_bearing(tower)), (tower, layer)


@pytest.mark.parametrize("depth", [1, LAYERS])
def test_without_scale_pan_asks_no_forward_pass(depth: int, tmp_path: Path) -> None:
    settings = {"PROMPT_DEPTH_VISION": depth, "N_CTX_VISION": 3}
    pan = ("TRAINER.NEMESIS.BETA", 0.0, "TRAINER.NEMESIS.OMEGA", 1.0)
    trainer = build("VPTNemesis", tmp_path, *pan, **settings)
    trainer.before_epoch()
    trainer._corrupted_logits = None
    step = trainer.tower_step({"img": SOURCE.images(VIT3), "label": SOURCE.labels(0, "a")})
    total, summary = trainer.step_penalty(step)
    assert not any((total, summary["pan"], *trainer._selections))
    everywhere = build("VPTNemesis", tmp_path, *pan, "TRAINER.NEMESIS.SELECT", False, **settings)
    everywhere.before_epoch()
    assert everywhere.step_penalty(step)[0] > 0


def test_start_values() -> None:
    model, shape = SOURCE.clip(VIT3), Shape(2, LAYERS)
    torch.manual_seed(0)
    maple = TowerPrompts(model, shape, shape, "a photo", coupled=True)
    first, second, third = (one.get_parameter("weight") for one in maple.coupling)
    assert second.equal(third) and second is not third and not first.equal(second)
    assert first.abs().max().item() <= 32**-0.5
    ids = torch.tensor([320, 1125])  # a, photo
    assert maple.text[0].equal(model.token_embedding.weight[ids])
    drawn = TowerPrompts(model, Shape(40, 2), Shape(40, 2))
    for prompts in drawn.parameters():
        assert prompts.std().item() == pytest.approx(0.02, rel=0.1)
    assert drawn.length == 80 and not list(drawn.coupling)


def test_words() -> None:
    assert split_words("a photo of a", 2) == ("a photo", "of a")
    assert split_words("a photo of a", 4) == ("a photo of a", "")
    assert split_words("a photo of a", 5) == split_words("", 2) == ("", "")
    with refused("2 tokens for 3 context vectors"):
        split_words("a photo", 3)
    with refused("within a word"):
        split_words("a superphotograph", 2)


PROBLEMS: list[tuple[str, dict[str, Any], tuple[Any, ...], str]] = [
    ("VPT", {"PROMPT_DEPTH_VISION": 0}, (), "depth of the vision prompts is 0, .* at least 1"),
    ("IVLP", {"PROMPT_DEPTH_TEXT": 0}, (), "at least 1; choose VPT"),
    ("MaPLe", {"PROMPT_DEPTH": 0}, (), "depth of the text prompts is 0"),
    ("MaPLe", {"PROMPT_DEPTH": 4}, (), "has 3 layers; choose at most 3"),
    ("IVLP", {"PROMPT_DEPTH_VISION": 4, "PROMPT_DEPTH_TEXT": 1}, (), "vision encoder .* 3 layers"),
    ("IVLP", {"N_CTX_TEXT": 0}, (), "text prompts have 0 vectors"),
    ("PromptSRC", {"CTX_INIT": "a photo"}, (), "2 tokens for 4 context vectors"),
    ("PromptSRC", {"GPA_STD": 0.0}, (), "GPA_STD is 0.0"),
    ("VPTNemesis", {"N_CTX_VISION": 2}, ("TRAINER.NEMESIS.N", 3), "only 2 vectors"),
    ("MaPLeNemesis", {"PROMPT_DEPTH": 1}, ("TRAINER.NEMESIS.N", 3), "only 2 vectors"),
    ("VPTNemesis", {}, ("TRAINER.NEMESIS.LAYERS", "scale_bearing"), "removes the scale"),
    ("VPTNemesis", {}, ("TRAINER.NEMESIS.LAYERS", "some"), "must be one of all, scale_bearing"),
    ("IVLP", {}, ("INPUT.TRAIN_VIEWS", 2), "leave it at 0, or set .*PROMPT_DEPTH_VISION 0"),
    ("MaPLe", {}, ("MODEL.BACKBONE.NAME", "RN50"), "RN50 is a ResNet, but MaPLe needs"),
    ("VPT", {"PROMPT_DEPTH_VISION": 13}, ("MODEL.BACKBONE.NAME", "ViT-B/16"), "has 12 layers"),
    ("IVLP", {"PROMPT_DEPTH_TEXT": 1}, ("DATASET.CLASSNAMES", ["cat", "dog " * 90]), "'dog dog"),
    ("VPT", {}, ("DATASET.CLASSNAMES", ["cat", "dog " * 90]), "'dog dog"),
]


@pytest.mark.parametrize(("name", "settings", "opts", "part"), PROBLEMS)
def test_refused(
    name: str, settings: dict[str, Any], opts: tuple[Any, ...], part: str, tmp_path: Path
) -> None:
    shallow = {"IVLP": BOTH, "PromptSRC": {**BOTH, "N_CTX_TEXT": 4}}.get(name, {})
    with refused(part):
        build(name, tmp_path, *opts, **{**shallow, **settings})
    assert not (tmp_path / "run").exists()


def test_class_names_too_long_for_the_teacher(tmp_path: Path) -> None:
    names = ["cat", "dog " * 68]
    trainer = build("PromptSRC", tmp_path, "DATASET.CLASSNAMES", names, **BOTH)
    with refused("dog dog"):
        trainer.check_train()


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def save(name: str, **settings: Any) -> Path:
        trainer = build(name, tmp_path / "saved", **settings)
        trainer.save_model(0, trainer.output_dir)
        return Path(trainer.output_dir)

    return save


def test_checkpoints_hold_the_learned_tensors_alone(saved: Callable[..., Path]) -> None:
    path = saved("MaPLe", PROMPT_DEPTH=2) / "prompt_learner/model.pth.tar-1"
    names = set(torch.load(path, weights_only=True)["state_dict"])
    couplings = {f"coupling.{layer}.{part}" for layer in (0, 1) for part in ("weight", "bias")}
    assert names == {"text.0", "text.1", *couplings}


@pytest.mark.parametrize(
    ("name", "settings", "part"),
    [
        ("IVLP", {**BOTH, "PROMPT_DEPTH_TEXT": 3}, "text tensors of depth 2 .* of depth 3"),
        ("IVLP", {**BOTH, "N_CTX_VISION": 2}, "size 3 x 64, but TRAINER.IVLP .* size 2 x 64"),
        ("IVLP", {**BOTH, "CTX_INIT": "a photo"}, "the fixed words were 'of a' .* are '' now"),
        ("VPT", {"N_CTX_VISION": 3, "PROMPT_DEPTH_VISION": 2}, "text tensors of depth 2"),
        ("CoOp", {"N_CTX": 2}, "does not fit|no prompts|ctx"),
    ],
)
def test_a_checkpoint_of_another_run(
    name: str, settings: dict[str, Any], part: str, saved: Callable[..., Path], tmp_path: Path
) -> None:
    folder = saved("IVLP", **BOTH)
    other = build(name, tmp_path / "other", **settings)
    with refused(part):
        other.load_model(folder, epoch=1)
    same = build("PromptSRC", tmp_path / "same", **BOTH)  # the same prompts
    same.load_model(folder, epoch=1)


@pytest.mark.parametrize("precision", ["bf16", "amp"])
@pytest.mark.parametrize("name", ["VPTNemesis", "MaPLeNemesis", "PromptSRCNemesis"])
def test_half_precision_is_near_fp32(name: str, precision: str, tmp_path: Path) -> None:
    losses = {}
    for one in ("fp32", precision):
        trainer = build(name, tmp_path, *NEMESIS, **METHODS[name], PREC=one)
        make_visible(trainer)
        trainer.before_epoch()
        batch = {"img": SOURCE.images(VIT3), "label": SOURCE.labels(0, "a")}
        losses[one] = trainer.forward_backward(batch)["loss"].item()
        for parameter in trainer.model.prompt_learner.parameters():
            assert parameter.dtype == torch.float32 and parameter.isfinite().all()
    assert losses[precision] == pytest.approx(losses["fp32"], rel=0.05)


def test_the_aggregation_starts_with_the_epochs_that_are_known(tmp_path: Path) -> None:
    """A checkpoint without a mean, as of other code: later epochs alone, still with sum 1."""
    trainer = build("PromptSRC", tmp_path, **BOTH, GPA_MEAN=3.0, GPA_STD=1.0)
    trainer.max_epoch, trainer._mean, ends = 4, {}, []
    for trainer.epoch in (2, 3):
        make_visible(trainer)
        with torch.no_grad():
            trainer.model.prompt_learner.text[0].add_(trainer.epoch)
        ends.append(trainer.model.prompt_learner.text[0].detach().clone())
        trainer.aggregate()
    later = math.exp(-0.5)  # epoch 4 is one std from the mean, epoch 3 none
    expected = (ends[0] + later * ends[1]) / (1 + later)
    torch.testing.assert_close(trainer.model.prompt_learner.text[0].detach(), expected)
