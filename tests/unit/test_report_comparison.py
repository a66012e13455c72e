"""Paired comparison with a baseline, checked by hand."""

import csv
import itertools
from typing import Any

import pytest

from nemesis.report.comparison import (
    Verdict,
    choose_baseline,
    collect_pairs,
    compare,
    paired_test,
    show_p,
)
from nemesis.report.listing import DASH, to_csv
from nemesis.report.scores import Runs
from nemesis.report.settings import name_rows
from safeio.errors import UserError
from tests.helpers.report_runs import a_run, a_test, pun


def named(*runs: dict[str, Any]) -> Runs:
    return name_rows(runs).runs


def exact_wilcoxon(gains: list[float]) -> float:
    """Two-sided p by counting all signs of the ranks; no ties among the sizes."""
    sizes = sorted(map(abs, gains))
    ranks = [sizes.index(abs(gain)) + 1 for gain in gains]
    middle = sum(ranks) / 2
    seen = abs(sum(rank for rank, gain in zip(ranks, gains, strict=True) if gain > 0) - middle)
    signs = list(itertools.product((0, 1), repeat=len(gains)))
    sums = [sum(r for r, s in zip(ranks, chosen, strict=True) if s) for chosen in signs]
    return sum(abs(total - middle) >= seen for total in sums) / len(signs)


GAINS = [1.0, 2.5, -0.5, 3.0, 4.0, 1.5, 2.0]


def test_wilcoxon_is_the_count_of_all_signs() -> None:
    """Rank sum of the negatives is 1: only {} and {1} are as extreme, so p = 2 * 2 / 2^7."""
    assert paired_test(GAINS).p == pytest.approx(4 / 128)
    assert exact_wilcoxon(GAINS) == 4 / 128
    assert paired_test([-gain for gain in GAINS]).p == pytest.approx(4 / 128)


def test_pairs_without_a_difference_leave_the_wilcoxon_test() -> None:
    assert paired_test([*GAINS, 0.0, 0.0]) == paired_test(GAINS)


def test_t_by_hand() -> None:
    """Mean 2, sample deviation 1, n 3: t = 2 sqrt 3; p = 1 - t / sqrt(2 + t^2) with 2 degrees."""
    t = 2 * 3**0.5
    verdict = paired_test([1.0, 2.0, 3.0], "t")
    assert verdict.p == pytest.approx(1 - t / (2 + t * t) ** 0.5)
    assert "few pairs" in verdict.note


@pytest.mark.parametrize(
    ("gains", "test", "verdict"),
    [
        ([], "wilcoxon", Verdict(None, "no pair differs")),
        ([0.0, 0.0], "wilcoxon", Verdict(None, "no pair differs")),
        (
            [1.0, 2.0, 3.0, 4.0, 5.0],
            "wilcoxon",
            Verdict(0.0625, "too few pairs: with 5 that differ, p is never below 0.0625"),
        ),
        ([1.0], "t", Verdict(None, "too few pairs: the t test needs 2")),
        ([1.0, 1.0], "t", Verdict(None, "all differences are equal")),
    ],
)
def test_too_few_pairs_are_said(gains: list[float], test: str, verdict: Verdict) -> None:
    assert paired_test(gains, test) == verdict


def test_pairs_are_of_one_dataset_shots_and_seed() -> None:
    runs = named(
        a_run(60.0),
        a_run(61.0, seed=2),
        a_run(80.0, shots=16),
        a_run(50.0, dataset="EmojiAnimals"),
        pun(62.0),
        pun(61.0, seed=2),
        pun(79.0, shots=16),
        pun(99.0, seed=3),  # CoOp has no seed 3
    )
    (listing,) = compare(runs, "CoOp")
    rows = list(csv.DictReader(to_csv(listing).splitlines()))
    columns = ("column", "difference", "pairs", "wins", "ties", "losses")
    assert [[row[name] for name in columns] for row in rows] == [
        ["1 shot", "1.0", "2", "1", "1", "0"],
        ["16 shots", "-1.0", "1", "0", "0", "1"],
        ["all", "0.333333", "3", "1", "1", "1"],
    ]
    assert "p is not adjusted for the 3 tests" in listing.caption


def test_equal_counts_are_a_tie_whatever_the_last_bit() -> None:
    pairs = collect_pairs("few-shot", named(a_run(0.1 + 0.2), pun(0.3)), "CoOp")
    assert pairs["CoOp+PUN", "all"].gains == [0.0]


def test_unlike_runs_are_no_pair() -> None:
    pairs = collect_pairs("few-shot", named(a_run(1.0), pun(2.0, num_test=5)), "CoOp")
    assert (pairs["CoOp+PUN", "all"].gains, pairs["CoOp+PUN", "all"].unlike) == ([], 1)
    (listing,) = compare(named(a_run(1.0), pun(2.0, num_test=5)), "CoOp")
    assert listing.rows[0][2].text == DASH


def test_zero_shot_clip_pairs_with_every_seed_and_number_of_shots() -> None:
    zero_shot = a_run(40.0, "ZeroshotCLIP", shots=0)
    runs = named(zero_shot, a_run(50.0), a_run(60.0, seed=2), a_run(70.0, shots=16))
    pairs = collect_pairs("few-shot", runs, "ZeroshotCLIP")
    assert sorted(pairs["CoOp", "all"].gains) == [10.0, 20.0, 30.0]


def test_base_to_new_is_compared_by_half() -> None:
    runs = []
    for make, gain in ((a_run, 0.0), (pun, 2.0)):
        base = make(80.0 - gain, subsample_classes="base")
        runs += [base, a_test(base, 40.0 + gain, subsample_classes="new")]
    pairs = collect_pairs("base-to-new", named(*runs), "CoOp")
    assert pairs["CoOp+PUN", "base"].gains == [-2.0]
    assert pairs["CoOp+PUN", "new"].gains == [2.0]


def test_the_baseline_is_coop_if_it_is_there() -> None:
    runs = named(a_run(1.0), pun(1.0))
    assert choose_baseline(runs, None) == "CoOp"
    assert choose_baseline(runs, "CoOp+PUN") == "CoOp+PUN"
    assert choose_baseline(named(pun(1.0)), None) is None


def test_an_unknown_baseline_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r'"CoOP\+PUM" is not a row; did you mean "CoOp\+PUN"'):
        choose_baseline(named(a_run(1.0), pun(1.0)), "CoOP+PUM")


def test_a_baseline_with_several_rows_has_to_be_named() -> None:
    runs = named(pun(1.0), pun(1.0, nemesis={"OMEGA": 10.0}))
    with pytest.raises(UserError, match=r'"CoOp\+PUN \(omega 1\)", "CoOp\+PUN \(omega 10\)"'):
        choose_baseline(runs, "CoOp+PUN")
    assert choose_baseline(runs, "CoOp+PUN (omega 1)") == "CoOp+PUN (omega 1)"


def test_p_for_people() -> None:
    assert [show_p(p) for p in (None, float("nan"), 0.0001, 0.0312)] == [
        *(DASH, DASH, "< 0.001", "0.031")
    ]
