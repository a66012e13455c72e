"""How many operators and waits a training step issues: on a GPU, each operator is a launch."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import clip.linear
from benchmarks.launches import count_launches
from benchmarks.synthetic import Backbone, batch_of_runs, class_names, synthetic_trainer
from clip import packed_transformer, text_encoding
from clip.config import CLIPConfig
from clip.model import CLIP
from trainers.nemesis import NormPenalty

CPU = torch.device("cpu")
WIDTH, BATCH, TOKENS = 64, 8, 50
# RN50 and its text encoder with narrower layers: the operators are the same.
CONFIG = CLIPConfig(
    *(WIDTH, 32, (3, 4, 6, 3), 8, None), vision_heads=4, transformer_width=64, transformer_heads=1
)


def count(step: Callable[[], Any]) -> tuple[int, int]:
    """The operators of a step, and those that wait."""
    step()  # the first one lays out the prompts
    launches = count_launches(step, CPU)
    return launches.issued, launches.waits


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
    whole = packed_transformer.WHOLE_GROUP_ELSEWHERE
    monkeypatch.setitem(packed_transformer.WHOLE_GROUP, "cpu", whole)


@pytest.mark.parametrize(
    ("trainer", "beta", "n", "cached", "most"),
    [
        (
            "CoOp",
            None,
            1,
            True,
            354,
        ),  # 563 before layouts, masks and indices were kept, 378 in blocks
        ("CoOp", None, 1, False, 497),  # 706
        ("CoOpNemesis", 1.0, 1, False, 516),  # 725
        ("CoOpNemesis", 0.0, 1, False, 690),  # 1,002, and a wait
        ("CoOpNemesis", 0.0, 4, False, 691),  # 1,030, and 4 waits
        ("CoOpNemesis", 0.0, 16, False, 691),  # 1,030, and 4 waits
        ("CoCoOp", None, 1, True, 388),
    ],
)
def test_a_run_alone(
    trainer: str, beta: float | None, n: int, cached: bool, most: int, backbone: Backbone
) -> None:
    built = synthetic_trainer(trainer, backbone, class_names(100), CPU)
    if beta is not None:
        built.norm_penalty = replace(built.norm_penalty, beta=beta, n=n)
    batch = {"label": torch.arange(BATCH)}
    unit = torch.full((BATCH, WIDTH), WIDTH**-0.5)
    batch |= {"features": unit} if cached else {"img": torch.ones(BATCH, 3, 32, 32)}
    assert count(lambda: built.forward_backward(batch)) <= (most, 0)


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize(
    ("trainer", "penalty", "most"),
    [
        ("CoOp", None, 349),
        ("CoOp", NormPenalty(), 368),
        ("CoOp", NormPenalty(beta=0.0), 555),
        ("CoOp", NormPenalty(beta=0.3, n=16), 555),
        ("PLOT", NormPenalty(beta=0.0), 775),  # with Sinkhorn's iterations
    ],
)
def test_a_batch(
    trainer: str, penalty: NormPenalty | None, most: int, runs: int, backbone: Backbone
) -> None:
    """A step of many runs issues as many operators as a step of one."""
    built = synthetic_trainer(trainer, backbone, class_names(100), CPU)
    tokens = [TOKENS] if trainer.startswith("PLOT") else []
    prompts, inputs = batch_of_runs(built, [penalty] * runs, BATCH, tokens)
    assert count(lambda: prompts.step(inputs)) <= (most, 0)
