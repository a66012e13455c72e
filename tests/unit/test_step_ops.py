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
from clip.config import CLIPConfig
from clip.model import CLIP

CPU = torch.device("cpu")
CLASSES, WIDTH = 100, 64
# RN50 and its text encoder with narrower layers: the operators are the same.
CONFIG = CLIPConfig(
    *(WIDTH, 32, (3, 4, 6, 3), 8, None),
    vision_heads=4,
    transformer_width=WIDTH,
    transformer_heads=1,
    vocab_size=49408,
)
# Operators that make the CPU wait for a GPU.
WAITS = ("_local_scalar_dense", "nonzero", "nonzero_static", "unique_dim", "_unique2", "is_nonzero")


class Counted(TorchDispatchMode):
    """Counts the operators that reach the dispatcher below autograd, and those that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and func.overloadpacket.__name__ != "_unsafe_view":
            self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def numbers(self) -> tuple[int, int]:
        """Operators and waits."""
        return sum(self.counts.values()), sum(self.counts[name] for name in WAITS)


def count(step: Callable[[], Any]) -> tuple[int, int]:
    for _ in range(2):  # the first step lays out the prompts
        step()
    with Counted() as counted:
        step()
    return counted.numbers


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    torch.manual_seed(0)
    path = str(tmp_path_factory.mktemp("ops") / "rn.safetensors")
    save_file({k: v.contiguous() for k, v in CLIP(CONFIG).state_dict().items()}, path)
    return Backbone("rn", path, CONFIG, text_heads=1, vision_heads=4)


@pytest.mark.parametrize(
    ("trainer", "beta", "n", "cached", "most"),
    [
        ("CoOp", None, 1, True, (390, 0)),
        ("CoOp", None, 1, False, (533, 0)),
        ("CoOpNemesis", 1.0, 1, False, (552, 0)),
        ("CoOpNemesis", 0.0, 1, False, (742, 1)),
        ("CoOpNemesis", 0.0, 4, False, (743, 1)),
        ("CoOpNemesis", 0.0, 16, False, (743, 1)),
    ],
)
def test_a_step(
    trainer: str,
    beta: float | None,
    n: int,
    cached: bool,
    most: tuple[int, int],
    backbone: Backbone,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # oneDNN's operators are only for a CPU.
    monkeypatch.setattr(clip.linear, "ONEDNN", False)
    built = synthetic_trainer(trainer, backbone, class_names(CLASSES), CPU)
    if beta is not None:
        built.norm_penalty = replace(built.norm_penalty, beta=beta, n=n)
    generator = torch.Generator().manual_seed(0)
    batch = {
        "features": functional.normalize(torch.randn(8, WIDTH, generator=generator), dim=-1),
        "img": torch.randn(8, 3, 32, 32, generator=generator),
        "label": torch.arange(8),
    }
    if not cached:
        del batch["features"]
    operators, waits = count(lambda: built.forward_backward(batch))
    assert (operators <= most[0], waits <= most[1]) == (True, True), (operators, waits)
