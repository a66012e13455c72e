"""The golden steps through the batched trainer: each case alone, and all of one layout at once."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.golden.cases import Case, assert_close, golden_folders
from tests.golden.nemesis import stepping_trainer
from trainers.core.batched_step import NUMBERS, BatchedPrompts, Inputs, Settings
from trainers.nemesis import omega_schedule

CASES = [
    case
    for folder in golden_folders()
    for case in folder.cases()
    if case.kind in ("steps", "steps_plot")
]


def layout(case: Case) -> tuple[object, ...]:
    """What cases in one batch share."""
    return case.folder.path, case.arch, case.kind, tuple(case.expected["ctx0"].shape)


LAYOUTS = sorted({layout(case) for case in CASES}, key=str)


def check(cases: Sequence[Case], root: Path) -> None:
    trainers = []
    for number, case in enumerate(cases):
        (root / str(number)).mkdir()
        trainers.append(stepping_trainer(case, root / str(number)))
        trainers[-1].before_epoch()
    settings = [Settings.of(trainer) for trainer in trainers]
    shape = cases[0].expected["ctx0"].shape
    prompts = BatchedPrompts(trainers[0].model, "fp32", settings, shape)
    prompts.load(trainers)
    for step in range(len(cases[0].expected["ce_loss"])):
        positions, rates, factors = [], [], []
        for case, own in zip(cases, settings, strict=True):
            params = case.params
            positions += [*params["positions"][step]] if own.drawn else []
            rates.append(params["lr"][step] if isinstance(params["lr"], list) else params["lr"])
            epoch = params["epochs"][step] if "epochs" in params else params["epoch"]
            kind = own.penalty.schedule if own.penalty else "constant"
            factors.append(omega_schedule(epoch, params["max_epoch"], kind))
        features = trainers[0].model.image_features(cases[0].images(step))
        inputs = Inputs(
            features.expand(len(cases), *features.shape),
            cases[0].labels(step).expand(len(cases), -1),
            torch.tensor(positions, dtype=torch.long),
            torch.tensor(rates),
            torch.tensor(factors),
        )
        numbers = prompts.step(inputs)
        prompts.store(trainers)
        for index, (case, trainer) in enumerate(zip(cases, trainers, strict=True)):
            assert_close(numbers[NUMBERS.index("ce"), index], case.expected["ce_loss"][step])
            after = case.expected["ctx_after"][step]
            assert_close(trainer.model.prompt_learner.ctx, after)
            if settings[index].drawn:
                chosen = case.expected["alpha"][step].bool()
                assert trainer._selections.bool().equal(chosen)
                trainer._selections.zero_()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.entry['name']}-{case.arch}")
def test_a_batch_of_one(case: Case, tmp_path: Path) -> None:
    check([case], tmp_path)


@pytest.mark.parametrize("number", range(len(LAYOUTS)))
def test_all_cases_of_a_layout_in_one_batch(number: int, tmp_path: Path) -> None:
    check([case for case in CASES if layout(case) == LAYOUTS[number]], tmp_path)
