"""CoCoOp against the golden numbers, through the real trainer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.golden import arrays, assert_golden, cases, images
from tests.golden_trainer import golden_trainer, set_rate, step

STEPS = 3


def _load(trainer: Any, expected: dict[str, Tensor]) -> dict[str, torch.nn.Parameter]:
    parameters = dict(trainer.model.prompt_learner.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(expected[f"param.{name}"])
    return parameters


def _trainer(case: dict[str, Any], folder: Path, *opts: Any) -> Any:
    params = case["params"]
    given = ["TRAINER.COCOOP.N_CTX", params["n_ctx"], "TRAINER.COCOOP.CTX_INIT", params["ctx_init"]]
    given += ["OPTIM.MAX_EPOCH", params["max_epoch"]]
    return golden_trainer("CoCoOp", case["arch"], folder, *given, *opts)


@pytest.mark.parametrize("memory", [4.0, 1e-9])
@pytest.mark.parametrize("case", cases("cocoop"))
def test_cocoop(
    case: dict[str, Any],
    memory: float,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("golden", "cocoop")
    expected = arrays(case["file"])
    trainer = _trainer(case, tmp_path, "MODEL.CLIP.TEXT_MEMORY", memory)
    parameters = _load(trainer, expected)
    features = trainer.model.image_features(images(case["arch"]))
    assert_golden(features, expected["image_features_normed"])
    shift = trainer.model.prompt_learner.shift(features)[:, 0]
    assert_golden(shift, expected["meta_bias"])
    with torch.no_grad():
        assert_golden(trainer.model(images(case["arch"])), expected["logits"])
    summary = step(trainer, case["arch"])
    assert_golden(summary["loss"], expected["loss"])
    for name, parameter in parameters.items():
        assert parameter.grad is not None
        assert_golden(parameter.grad, expected[f"grad.{name}"])


@pytest.mark.parametrize("mode", ["lr002", "sched"])
@pytest.mark.parametrize("case", cases("cocoop"))
def test_cocoop_steps(case: dict[str, Any], mode: str, tmp_path: Path) -> None:
    expected = arrays(case["file"])
    trainer = _trainer(case, tmp_path)
    parameters = _load(trainer, expected)
    for number in range(STEPS):
        if mode == "lr002":
            set_rate(trainer, 0.002)
        else:
            trainer.num_batches = 1
        rate = float(expected[f"steps_{mode}_lr"][number])
        assert trainer.get_current_lr() == pytest.approx(rate, abs=1e-12)
        epoch = number if mode == "sched" else 0
        summary = step(trainer, case["arch"], number, epoch)
        assert_golden(summary["loss"], expected[f"steps_{mode}_loss"][number])
        for name, parameter in parameters.items():
            assert_golden(parameter, expected[f"steps_{mode}.{name}"][number])
