"""Tasks of classes, the measures of the continual protocol, and orthogonal adapters."""

from typing import Any

import pytest
import torch

from dassl.config import load_config
from dassl.data.datasets import Datum
from dassl.data.datasets.splits import task_classes
from nemesis.continual.protocol import Method, Outcome
from safeio.errors import UserError
from trainers.orthogonal_lora import orthonormal_rows

ITEMS = [Datum(f"{label}.png", label, classname=f"class {label}") for label in range(11)]


def names(task: int, part: str, tasks: int = 3, seed: int = 1) -> list[str]:
    """The class names by their new label."""
    chosen, none = task_classes(ITEMS, [], tasks=tasks, task=task, part=part, seed=seed)
    assert none == [] and sorted(item.label for item in chosen) == list(range(len(chosen)))
    return [item.classname for item in sorted(chosen, key=lambda item: item.label)]


def test_tasks_are_a_partition_that_the_seed_draws() -> None:
    own = [names(task, "own") for task in (1, 2, 3)]
    assert [len(classes) for classes in own] == [3, 4, 4]
    everything = [*own[0], *own[1], *own[2]]
    assert sorted(everything) == sorted(item.classname for item in ITEMS)
    assert names(2, "seen") == own[0] + own[1] and names(3, "seen") == everything
    assert names(1, "unseen") == own[1] + own[2]
    assert own[0] != names(1, "own", seed=2)


@pytest.mark.parametrize(
    ("tasks", "task", "part", "message"),
    [(6, 1, "own", "at most 5 tasks"), (3, 3, "unseen", "task 3 is the last of 3")],
)
def test_impossible_tasks(tasks: int, task: int, part: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        names(task, part, tasks)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("DATASET.TASKS", 3, "DATASET.TASK", 4), "must be from 1 to DATASET.TASKS, 3"),
        (("DATASET.TASKS", 3, "DATASET.TASK", 0), "DATASET.TASK is 0"),
        (("DATASET.TASKS", -1), "DATASET.TASKS is -1"),
        (("DATASET.TASK_CLASSES", "all"), "own, seen, unseen"),
    ],
)
def test_impossible_settings(settings: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(opts=list(settings))


def test_measures() -> None:
    zero_shot = Outcome([80.0, 70.0, 60.0], [90.0, 85.0], [[80.0], [70.0, 70.0], [60.0] * 3])
    learned = Outcome([90.0, 84.0, 78.0], [88.0, 80.0], [[90.0], [92.0, 76.0], [80.0, 70.0, 84.0]])
    assert learned.measures(zero_shot) == {
        "average": 84.0,
        "last": 78.0,
        "forgetting": (12.0 + 6.0) / 2,
        "zero-shot drop": (2.0 + 5.0) / 2,
    }


def test_the_rows_of_a_new_adapter_are_orthogonal_to_all_earlier_ones() -> None:
    past = torch.empty(0, 12)
    for _ in range(4):
        past = torch.cat([past, orthonormal_rows(past, 3)])
    torch.testing.assert_close(past @ past.T, torch.eye(12), atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="leave 0 of 12 dimensions"):
        orthonormal_rows(past, 1)


def test_methods_are_read() -> None:
    assert Method.parse("CoOp") == Method("CoOp", "sequential", "")
    assert Method.parse("CoTo:merged:a/b.yaml") == Method("CoTo", "merged", "a/b.yaml")
    with pytest.raises(UserError, match="merged"):
        Method.parse("CoTo:merge")
