"""Paired comparison with a baseline, checked by hand."""

import csv
import itertools
from typing import Any

import pytest

from nemesis.report.comparison import Comparison, choose_baseline, compare
from nemesis.report.comparison_tables import comparison_table, group_table
from nemesis.report.paired_tests import holm, paired_test
from nemesis.report.results import Runs
from nemesis.report.settings import name_rows
from nemesis.report.table import DASH, STAR
from safeio.errors import UserError
from tests.helpers.report_runs import a_run, a_test, pun, texts


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
    assert paired_test(GAINS) == (pytest.approx(4 / 128), "")
    assert exact_wilcoxon(GAINS) == 4 / 128
    assert paired_test([-gain for gain in GAINS])[0] == pytest.approx(4 / 128)


def test_pairs_without_a_difference_leave_the_wilcoxon_test() -> None:
    assert paired_test([*GAINS, 0.0, 0.0]) == paired_test(GAINS)


def test_t_by_hand() -> None:
    """Mean 2, sample deviation 1, n 3: t = 2 sqrt 3; p = 1 - t / sqrt(2 + t^2) with 2 degrees."""
    t = 2 * 3**0.5
    p, note = paired_test([1.0, 2.0, 3.0], "t")
    assert p == pytest.approx(1 - t / (2 + t * t) ** 0.5)
    assert "few pairs" in note


def test_holm_by_hand() -> None:
    """Three times the smallest, twice the next, and never less than a smaller one's."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("gains", "test", "found"),
    [
        ([], "wilcoxon", (None, "no pair differs")),
        ([0.0, 0.0], "wilcoxon", (None, "no pair differs")),
        (
            [1.0, 2.0, 3.0, 4.0, 5.0],
            "wilcoxon",
            (0.0625, "too few pairs: with 5 that differ, p is never below 0.0625"),
        ),
        ([1.0], "t", (None, "too few pairs: the t test needs 2")),
        ([1.0, 1.0], "t", (None, "all differences are equal")),
    ],
)
def test_too_few_pairs_are_said(gains: list[float], test: str, found: Any) -> None:
    assert paired_test(gains, test) == found


def compared(*runs: dict[str, Any], baseline: str = "CoOp") -> Comparison:
    (found,) = compare(named(*runs), baseline)
    return found


def test_pairs_are_of_one_dataset_shots_and_seed() -> None:
    found = compared(
        a_run(60.0),
        a_run(61.0, seed=2),
        a_run(80.0, shots=16),
        a_run(50.0, dataset="EmojiAnimals"),
        pun(62.0),
        pun(61.0, seed=2),
        pun(79.0, shots=16),
        pun(99.0, seed=3),  # CoOp has no seed 3
    )
    table = comparison_table(found)
    rows = list(csv.DictReader(table.csv().splitlines()))
    columns = ("column", "difference", "pairs", "wins", "ties", "losses")
    assert [[row[name] for name in columns] for row in rows] == [
        ["1 shot", "1.0", "2", "1", "1", "0"],
        ["16 shots", "-1.0", "1", "0", "0", "1"],
        ["all", "0.333333", "3", "1", "1", "1"],
    ]
    assert texts(table) == [
        ["method", "1 shot", "16 shots", "all", "wins / pairs", "p"],
        ["CoOp+PUN", "+1.00", "\N{MINUS SIGN}1.00", "+0.33", "1 / 3", "1.000"],
    ]
    assert "Holm-adjusted for the 3 tests" in table.caption
    assert "Pairs of one dataset are not independent" in table.caption


def test_stars_are_of_adjusted_p() -> None:
    """Eight of eight pairs: p = 2 / 2^8; twice that for two tests."""
    runs = []
    for seed in range(8):
        for shots in (1, 16):
            runs += [a_run(60.0, seed=seed, shots=shots), pun(61.0 + seed, seed=seed, shots=shots)]
            runs += [a_run(60.0 + seed % 2, "PLOT", seed=seed, shots=shots)]
    found = compared(*runs)
    one = found.differences["CoOp+PUN", "1 shot"]
    assert (one.p, one.adjusted) == (2 / 256, pytest.approx(5 * 2 / 256))
    assert one.stars == STAR
    assert found.over_all("CoOp+PUN").stars == 2 * STAR
    assert found.best == "CoOp+PUN"


def test_one_seed_is_not_tested() -> None:
    found = compared(a_run(60.0), pun(62.0), a_run(60.0, shots=4), pun(62.0, shots=4))
    table = comparison_table(found)
    assert texts(table)[1] == ["CoOp+PUN", "+2.00", "+2.00", "+2.00", "2 / 2"]
    assert "test" not in table.caption


def test_a_row_that_misses_datasets_is_not_the_best() -> None:
    runs = []
    for dataset in ("A", "B"):
        runs += [a_run(60.0, dataset=dataset), pun(61.0, dataset=dataset)]
    found = compared(*runs, a_run(99.0, "PLOT", "A"))
    assert (found.best, found.missing("PLOT")) == ("CoOp+PUN", "1 of 2 datasets")
    assert texts(comparison_table(found))[2][1] == "+39.00 (1 of 2 datasets)"
    assert texts(group_table(found))[2] == ["PLOT", "+39.00", DASH]


def test_equal_counts_are_a_tie_whatever_the_last_bit() -> None:
    assert compared(a_run(0.1 + 0.2), pun(0.3)).over_all("CoOp+PUN").gains == (0.0,)


def test_unlike_runs_are_no_pair() -> None:
    found = compared(a_run(1.0), pun(2.0, num_test=5))
    assert (found.over_all("CoOp+PUN").gains, found.over_all("CoOp+PUN").unlike) == ((), 1)
    table = comparison_table(found)
    assert texts(table)[1][1] == DASH
    assert "1 pair left out" in table.caption


def test_zero_shot_clip_pairs_with_every_seed_and_number_of_shots() -> None:
    zero_shot = a_run(40.0, "ZeroshotCLIP", shots=0)
    runs = (zero_shot, a_run(50.0), a_run(60.0, seed=2), a_run(70.0, shots=16))
    found = compared(*runs, baseline="ZeroshotCLIP")
    assert sorted(found.over_all("CoOp").gains) == [10.0, 20.0, 30.0]


def test_base_to_new_is_compared_by_half() -> None:
    runs = []
    for make, gain in ((a_run, 0.0), (pun, 2.0)):
        base = make(80.0 - gain, subsample_classes="base")
        runs += [base, a_test(base, 40.0 + gain, subsample_classes="new")]
    found = compared(*runs)
    assert found.differences["CoOp+PUN", "base"].gains == (-2.0,)
    assert found.differences["CoOp+PUN", "new"].gains == (2.0,)
    assert found.groups == ["EmojiFood, base", "EmojiFood, new"]


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
