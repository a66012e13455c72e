"""Jobs that take turns: their own globals, their joint work, their ends."""

import random
import sys
from typing import Any

import numpy as np
import pytest
import torch

from dassl.engine.lockstep import Lockstep


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(()).item()


def test_every_job_has_its_own_generators_and_output() -> None:
    lockstep = Lockstep()
    asked: list[list[int]] = []

    def double(contents: list[int]) -> list[int]:
        asked.append(contents)
        return [2 * content for content in contents]

    def job(number: int, times: int) -> list[Any]:
        random.seed(number)
        np.random.seed(number)
        torch.manual_seed(number)
        print("not seen")
        drawn = []
        for _ in range(times):
            assert lockstep.join(0, "double", number, double) == 2 * number
            drawn.append(draws())
        return drawn

    alone = []
    for number in (1, 2, 3):
        alone.append(Lockstep().run([lambda: None]))  # leaves the generators as they are
        random.seed(number)
        np.random.seed(number)
        torch.manual_seed(number)
        alone[-1] = [draws() for _ in range(number)]
    before, stdout = torch.get_rng_state(), sys.stdout
    together = lockstep.run([lambda n=n: job(n, n) for n in (1, 2, 3)])  # type: ignore[misc]
    assert together == alone
    assert asked == [[1, 2, 3], [2, 3], [3]]  # who has ended is not waited for
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
        lockstep.run([lambda n=n: job(n) for n in (1, 2)])  # type: ignore[misc]
    assert closed == [1, 2]
    assert sys.stdout is stdout
