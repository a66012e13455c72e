"""KgCoOp, ProGrad and TCP: float64 oracles, other classes, batches, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from clip.clip import tokenize
from dassl.config import load_config
from dassl.engine import check_trainer
from nemesis.sweeps.runs import digest_of
from safeio.errors import UserError
from tests.golden import images, labels, tiny_clip
from tests.golden.cases import BUNDLED, assert_close
from tests.golden.harness import fix_positions, golden_trainer, set_rate, step
from tests.helpers.oracle import reference_encoder
from tests.unit.test_class_tokens import oracle
from trainers.core.batched_step import NUMBERS, BatchedPrompts, Inputs, Settings
from trainers.nemesis import omega_schedule
from trainers.prograd import project

CLASSES = BUNDLED.index["classes"]
TEACHER = "a photo of a {}."
POSITIONS = [0, 3]
BETA, TAU, OMEGA, W, T, LAMBDA = 0.3, 0.5, 2.0, 8.0, 2.0, 0.8
NEMESIS = (
    *("TRAINER.NEMESIS.BETA", BETA, "TRAINER.NEMESIS.N", len(POSITIONS)),
    *("TRAINER.NEMESIS.OMEGA", OMEGA, "TRAINER.NEMESIS.TAU", TAU),
)


def pieces(trainer: Any) -> tuple[Tensor, Tensor, Tensor, Callable[[Tensor], Tensor], float]:
    """ctx, image features and teacher, text features of a ctx, and the scale, in float64."""
    model = tiny_clip("vit").double()
    ctx = trainer.model.prompt_learner.ctx.detach().double().requires_grad_()
    encode = reference_encoder(model, CLASSES, ctx.shape[-2])
    teacher = model.encode_text(tokenize([TEACHER.format(c.replace("_", " ")) for c in CLASSES]))
    features = functional.normalize(model.encode_image(images("vit").double()), dim=-1)
    text = lambda v: functional.normalize(encode(v), dim=-1)  # noqa: E731
    return (
        ctx,
        features,
        functional.normalize(teacher, dim=-1),
        text,
        float(model.logit_scale.exp()),
    )


def norm_gradient(ctx: Tensor, correct: Callable[[Tensor], int], epoch: int) -> Tensor:
    """The gradient of omega_E (beta PUN + (1 - beta) PAN)."""
    norms, chosen = ctx.norm(dim=-1).flatten(0, -2).sum(0), []
    for position in POSITIONS:
        corrupted = ctx.detach().clone()
        corrupted[..., position, :] *= TAU
        if correct(corrupted) > correct(ctx.detach()):
            chosen.append(position)
    pan = OMEGA * norms[chosen].mean() if chosen else 0.0
    total = omega_schedule(epoch, 50) * (BETA * OMEGA * norms.mean() + (1 - BETA) * pan)
    return torch.autograd.grad(total, ctx)[0]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", ["KgCoOpNemesis", "ProGradNemesis"])
def test_nemesis_on_class_specific_contexts(name: str, seed: int, tmp_path: Path) -> None:
    node = name.removesuffix("Nemesis").upper()
    own = ("T", T, "LAMBDA", LAMBDA) if node == "PROGRAD" else ("W", W)
    settings = [f"TRAINER.{node}.{v}" if isinstance(v, str) else v for v in own]
    csc = (f"TRAINER.{node}.CSC", True, f"TRAINER.{node}.N_CTX", 4)
    trainer = golden_trainer(name, "vit", tmp_path, *settings, *csc, *NEMESIS)
    torch.manual_seed(seed)
    torch.nn.init.normal_(trainer.model.prompt_learner.ctx, std=0.4)
    ctx, features, teacher, text, scale = pieces(trainer)
    fix_positions(trainer, POSITIONS)
    summary = step(trainer, "vit", epoch=3)

    g = text(ctx)
    z, zt = scale * features @ g.T, scale * features @ teacher.T
    ce = functional.cross_entropy(z, labels())
    if node == "KGCOOP":
        kg = 1 - functional.cosine_similarity(g, teacher).mean()
        gradient = torch.autograd.grad(ce + W * kg, ctx, retain_graph=True)[0]
        assert_close(summary["kg"], kg)
    else:
        kl = -(T**2) * ((zt / T).softmax(-1) * (z / T).log_softmax(-1)).sum(-1).mean()
        a, b = (torch.autograd.grad(loss, ctx, retain_graph=True)[0] for loss in (ce, kl))
        unit = b / b.norm()
        along = (a * unit).sum()
        gradient = a - LAMBDA * along * unit if along < 0 else a
        assert_close(summary["kl"], kl)
        assert bool(summary["projected"]) == bool(along < 0)

    def correct(v: Tensor) -> int:
        return int(((scale * features @ text(v).T).argmax(-1) == labels()).sum())

    expected = gradient + norm_gradient(ctx, correct, 3)
    assert_close(trainer.model.prompt_learner.ctx.grad, expected, 1e-4)


def test_project() -> None:
    a, b = torch.tensor([3.0, -1.0]), torch.tensor([0.0, 2.0])
    used, opposed, ignored = project(a, b, 1.0)
    assert used.tolist() == [3.0, 0.0] and bool(opposed) and not bool(ignored)
    assert project(a, -b, 1.0)[0].equal(a) and project(a, b, 0.0)[0].equal(a)
    for small in (0 * b, 1e-7 * b):
        used, opposed, ignored = project(a, small, 1.0)
        assert used.equal(a) and not bool(opposed) and bool(ignored)
    for bad in (torch.inf, torch.nan):  # an overflow under the gradient scaler skips the step
        assert project(a, b * bad, 1.0)[0].isnan().all()


def test_prograd_starts_from_the_words_of_its_template(tmp_path: Path) -> None:
    words = (
        "TRAINER.PROGRAD.WORDS",
        True,
        "TRAINER.PROGRAD.TEACHER",
        "a type of pet, a photo of a {}.",
    )
    trainer = golden_trainer("ProGrad", "vit", tmp_path, *words, "TRAINER.PROGRAD.N_CTX", 9)
    same = trainer.model.text_features(trainer.model.prompt_learner())[0]
    assert_close(same, trainer.model.teacher)
    summary = step(trainer, "vit")  # the student is the teacher
    assert bool(summary["kl_ignored"]) and not bool(summary["projected"])
    trainer = golden_trainer("ProGrad", "vit", tmp_path, *words)
    ctx = trainer.model.prompt_learner.ctx
    assert ctx.shape[0] == 16 and not ctx[:7].any() and ctx[7:].any(-1).all()


def test_prograd_under_a_gradient_scaler(tmp_path: Path) -> None:
    """Scaled gradients give the same step; an overflow leaves the prompts as they are."""
    prompts = []
    for number, scale in enumerate((None, 1024.0, 3e38)):
        folder = tmp_path / str(number)
        folder.mkdir()
        torch.manual_seed(0)
        trainer = golden_trainer("ProGradNemesis", "vit", folder)
        if scale:
            trainer.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        before = trainer.model.prompt_learner.ctx.detach().clone()
        set_rate(trainer, 0.1)
        step(trainer, "vit")
        prompts.append(trainer.model.prompt_learner.ctx.detach())
    plain, scaled, overflown = prompts
    assert_close(scaled, plain)
    assert overflown.equal(before) and not plain.equal(before)


def test_keys_of_the_released_code_are_explained() -> None:
    with pytest.raises(UserError, match=r"TRAINER\.PROGRAD\.LAMBDA"):
        load_config(opts=["LOSS.LAMBDA", "0.8"])


def test_tcp_for_new_classes_has_their_own_class_tokens(tmp_path: Path) -> None:
    names, layer = ["dog", "golden_retriever", "golden eagle", "annual crop land"], 1
    options = ("TRAINER.TCP.INSERT_LAYER", layer, "OPTIM.NAME", "adam", "OPTIM.ADAM_EPS", 1e-3)
    trained = golden_trainer("TCP", "vit", tmp_path, *options)
    step(trained, "vit")
    other = golden_trainer("TCP", "vit", tmp_path, *options, "DATASET.CLASSNAMES", names)
    learner = other.model.prompt_learner
    learner.load_state_dict(trained.model.prompt_learner.state_dict())
    model = tiny_clip("vit").double()
    teacher = model.encode_text(tokenize([TEACHER.format(c.replace("_", " ")) for c in names]))
    tokens = learner.class_tokens(functional.normalize(teacher, dim=-1)).double()
    g = oracle(model, learner.ctx.double(), tokens, "X X X X {}.", layer, 1.0)
    assert_close(other.class_weights(), functional.normalize(g, dim=-1))


def test_kgcoop_in_a_batch(tmp_path: Path) -> None:
    """Two runs with other seeds and Nemesis settings step as each does alone."""
    trainers = []
    for seed, beta in ((1, 1.0), (2, 0.0)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        one = golden_trainer("KgCoOpNemesis", "vit", folder, "TRAINER.NEMESIS.BETA", beta)
        torch.manual_seed(seed)
        torch.nn.init.normal_(one.model.prompt_learner.ctx, std=0.4)
        fix_positions(one, [2])
        one.before_epoch()
        trainers.append(one)
    settings = [Settings.of(trainer) for trainer in trainers]
    prompts = BatchedPrompts(trainers[0].model, "fp32", settings, (4, 32))
    prompts.load(trainers)
    features = trainers[0].model.image_features(images("vit"))
    inputs = Inputs(
        *(features.expand(2, -1, -1), labels().expand(2, -1), torch.tensor([2])),
        *(torch.full((2,), 1e-5), torch.full((2,), omega_schedule(0, 50))),
    )
    numbers = prompts.step(inputs)
    for index, trainer in enumerate(trainers):
        summary = step(trainer, "vit")
        for name, value in zip((*NUMBERS, "kg"), numbers[:, index], strict=True):
            if name in summary:
                assert_close(value, torch.as_tensor(summary[name]).squeeze())
        assert_close(prompts.ctx[index], trainer.model.prompt_learner.ctx)


@pytest.mark.parametrize(
    ("name", "settings", "part"),
    [
        ("KgCoOp", ("TRAINER.KGCOOP.TEACHER", "a photo"), "TRAINER.KGCOOP.TEACHER"),
        ("KgCoOpNemesis", ("TRAINER.KGCOOP.W", -1.0), "W is -1.0, but must be at least 0"),
        ("ProGrad", ("TRAINER.PROGRAD.TEACHER", "a photo"), "no {} for the class name"),
        ("ProGrad", ("TRAINER.PROGRAD.T", 0.0), "T is 0.0, but must be above 0"),
        ("ProGrad", ("TRAINER.PROGRAD.LAMBDA", -0.1), "LAMBDA is -0.1"),
        ("ProGrad", ("TRAINER.PROGRAD.WORDS", True, "TRAINER.PROGRAD.N_CTX", 3), "which has 4"),
        ("TCP", ("TRAINER.TCP.TEACHER", "a photo"), "TRAINER.TCP.TEACHER"),
        ("TCP", ("TRAINER.TCP.STUDENT", "a photo of a"), "TRAINER.TCP.STUDENT"),
        ("TCP", ("TRAINER.TCP.STUDENT", "a {}."), '"X X X X"'),
        ("TCP", ("TRAINER.TCP.N_CTX", 16), "N_CTX is 16"),
        ("TCP", ("TRAINER.TCP.CTX_INIT", "a photo"), 'CTX_INIT "a photo" has 2 tokens'),
        ("TCP", ("TRAINER.TCP.W", -8.0), "W is -8.0"),
        ("TCP", ("TRAINER.TCP.BLEND", 1.5), "from 0 to 1"),
        ("TCP", ("TRAINER.TCP.INSERT_LAYER", -1), "INSERT_LAYER"),
        ("TCPNemesis", ("TRAINER.TCP.INSERT_LAYER", 12), "blocks 0 to 11"),
    ],
)
def test_refused_before_anything_is_loaded(name: str, settings: tuple[Any, ...], part: str) -> None:
    fixed = ("TRAINER.NAME", name, "DEVICE", "cpu", "MODEL.BACKBONE.NAME", "ViT-B/16")
    with pytest.raises(UserError) as caught:
        check_trainer(load_config(opts=[*fixed, *settings]))
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_templates_count_for_their_own_method_alone() -> None:
    def digest(name: str, *settings: Any) -> str:
        return digest_of(load_config(opts=["TRAINER.NAME", name, *settings]))

    student = ("TRAINER.TCP.STUDENT", "X X X X {}, a bird.")
    for name in ("CoOp", "KgCoOpNemesis", "Unknown"):
        assert digest(name, *student) == digest(name)
    assert digest("TCPNemesis", *student) != digest("TCPNemesis")
