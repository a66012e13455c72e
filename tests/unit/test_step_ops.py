"""How many operators and waits a training step issues: on a GPU, each operator is a launch."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import clip.linear
from benchmarks.synthetic import Backbone, class_names, synthetic_trainer
from clip import text_encoding
from clip.config import CLIPConfig
from clip.model import CLIP
from trainers.core.batched_epochs import settings_of
from trainers.core.batched_step import BatchedPrompts, Inputs
from trainers.nemesis import NormPenalty

CPU = torch.device("cpu")
WIDTH, BATCH, TOKENS = 64, 8, 50
# RN50 and its text encoder with narrower layers: the operators are the same.
CONFIG = CLIPConfig(
    *(WIDTH, 32, (3, 4, 6, 3), 8, None), vision_heads=4, transformer_width=64, transformer_heads=1
)
# Operators that make the CPU wait for a GPU.
WAITS = ("_local_scalar_dense", "nonzero", "nonzero_static", "unique_dim", "_unique2", "is_nonzero")


class Counted(TorchDispatchMode):
    """Counts the operators that reach the dispatcher below autograd, without views."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and func.overloadpacket.__name__ != "_unsafe_view":
            self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def count(step: Callable[[], Any]) -> tuple[int, int]:
    """The operators of a step, and those that wait."""
    step()  # the first one lays out the prompts
    with Counted() as counted:
        step()
    return sum(counted.counts.values()), sum(counted.counts[name] for name in WAITS)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    torch.manual_seed(0)
    path = str(tmp_path_factory.mktemp("ops") / "rn.safetensors")
    save_file({k: v.contiguous() for k, v in CLIP(CONFIG).state_dict().items()}, path)
    return Backbone("rn", path, CONFIG, text_heads=1, vision_heads=4)


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without oneDNN's operators and the small parts that are only for a CPU."""
    monkeypatch.setattr(clip.linear, "ONEDNN", False)
    at_once = text_encoding.BYTES_AT_ONCE_ELSEWHERE
    monkeypatch.setitem(text_encoding.BYTES_AT_ONCE, "cpu", at_once)


def features(trainer: str, *runs: int) -> torch.Tensor:
    tokens = [TOKENS] if trainer.startswith("PLOT") else []
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(*runs, BATCH, *tokens, WIDTH, generator=generator)
    return functional.normalize(drawn, dim=-1)


@pytest.mark.parametrize(
    ("trainer", "beta", "n", "cached", "most"),
    [
        ("CoOp", None, 1, True, 378),  # 563 before layouts, masks and indices were kept
        ("CoOp", None, 1, False, 521),  # 706
        ("CoOpNemesis", 1.0, 1, False, 540),  # 725
        ("CoOpNemesis", 0.0, 1, False, 726),  # 1,002, and a wait
        ("CoOpNemesis", 0.0, 4, False, 727),  # 1,030, and 4 waits
        ("CoOpNemesis", 0.0, 16, False, 727),  # 1,030, and 4 waits
        ("CoCoOp", None, 1, True, 418),
    ],
)
def test_a_run_alone(
    trainer: str, beta: float | None, n: int, cached: bool, most: int, backbone: Backbone
) -> None:
    built = synthetic_trainer(trainer, backbone, class_names(100), CPU)
    if beta is not None:
        built.norm_penalty = replace(built.norm_penalty, beta=beta, n=n)
    batch = {"label": torch.arange(BATCH)}
    batch |= {"features": features(trainer)} if cached else {"img": torch.ones(BATCH, 3, 32, 32)}
    assert count(lambda: built.forward_backward(batch)) <= (most, 0)


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize(
    ("trainer", "penalty", "most"),
    [
        ("CoOp", None, 373),
        ("CoOp", NormPenalty(), 392),
        ("CoOp", NormPenalty(beta=0.0), 591),
        ("CoOp", NormPenalty(beta=0.3, n=16), 591),
        ("PLOT", NormPenalty(beta=0.0), 850),  # with Sinkhorn's iterations
    ],
)
def test_a_batch(
    trainer: str, penalty: NormPenalty | None, most: int, runs: int, backbone: Backbone
) -> None:
    """A step of many runs issues as many operators as a step of one."""
    built = synthetic_trainer(trainer, backbone, class_names(100), CPU)
    settings = [replace(settings_of(built), penalty=penalty)] * runs
    parameter = built.model.prompt_learner.ctx
    prompts = BatchedPrompts(built.model, "fp32", settings, parameter.shape)
    with torch.no_grad():
        prompts.ctx.copy_(parameter)
    inputs = Inputs(
        features(trainer, runs),
        torch.arange(BATCH).expand(runs, -1),
        torch.arange(settings[0].drawn).repeat(runs),
        torch.full((runs,), 0.002),
        torch.ones(runs),
    )
    assert count(lambda: prompts.step(inputs)) <= (most, 0)
