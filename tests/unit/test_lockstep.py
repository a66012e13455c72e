"""Jobs that take turns: their own globals, their joint work, their ends."""

import random
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from dassl.engine.lockstep import Lockstep


def seed_all(number: int) -> None:
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(()).item()


def test_every_job_has_its_own_generators_and_output() -> None:
    lockstep = Lockstep()
    asked: list[list[int]] = []

    def double(contents: list[int]) -> list[int]:
        asked.append(contents)
        return [2 * content for content in contents]

    def job(number: int) -> list[Any]:
        seed_all(number)
        print("not seen")
        drawn = []
        for _ in range(number):
            assert lockstep.join(0, "double", number, double) == 2 * number
            drawn.append(draws())
        return drawn

    alone = []
    for number in (1, 2, 3):
        seed_all(number)
        alone.append([draws() for _ in range(number)])
    before, stdout = torch.get_rng_state(), sys.stdout
    assert lockstep.run([partial(job, number) for number in (1, 2, 3)]) == alone
    assert asked == [[1, 2, 3], [2, 3], [3]]  # nothing waits for a job that has ended
    assert torch.equal(before, torch.get_rng_state())
    assert sys.stdout is stdout


def test_lower_stages_come_first_and_faults_reach_all_who_asked() -> None:
    lockstep = Lockstep()
    order: list[str] = []

    def note(contents: list[str]) -> list[str]:
        order.append("+".join(contents))
        if "bad" in contents:
            raise ValueError("bad work")
        return contents

    def first() -> None:
        lockstep.join(1, "late", "a", note)
        lockstep.join(2, "last", "bad", note)

    def second() -> None:
        lockstep.join(0, "early", "b", note)
        lockstep.join(1, "late", "c", note)
        lockstep.join(2, "last", "d", note)

    outcomes = lockstep.run([first, second])
    assert order == ["b", "a+c", "bad+d"]
    assert [str(outcome) for outcome in outcomes] == ["bad work", "bad work"]


def test_an_interruption_closes_every_job() -> None:
    lockstep = Lockstep()
    closed = []

    def interrupt(contents: list[int]) -> list[int]:
        raise KeyboardInterrupt

    def job(number: int) -> None:
        try:
            lockstep.join(0, "work", number, interrupt)
        finally:
            closed.append(number)

    stdout = sys.stdout
    with pytest.raises(KeyboardInterrupt):
        lockstep.run([partial(job, number) for number in (1, 2)])
    assert closed == [1, 2]
    assert sys.stdout is stdout
