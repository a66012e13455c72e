"""The first screen: which method wins, by how much, and whether it agrees with the paper."""

from pathlib import Path
from typing import Any

import pytest

from nemesis.report.accuracy import make_tables
from nemesis.report.comparison import compare, headline
from nemesis.report.measures import measures_table
from nemesis.report.overview import cards, describe_runs
from nemesis.report.paper_comparison import find_matches
from nemesis.report.settings import name_rows
from nemesis.report.sweep_status import SweepStatus
from tests.helpers.report_runs import a_run, a_test, like_the_paper, pun, texts


def shown(*runs: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The cards of these runs."""
    named = name_rows(runs).runs
    scores = make_tables(named).scores
    found = headline(compare(named, "CoOp"))
    made = cards(named, scores, found, find_matches(named, scores), "no such setting")
    return [(card.label, card.value, card.detail) for card in made]


def test_cards_of_several_seeds() -> None:
    runs = []
    for dataset in ("EmojiFood", "EmojiAnimals"):
        for seed in (1, 2):
            runs += [a_run(60.0, dataset=dataset, seed=seed, shots=n) for n in (1, 16)]
            runs += [pun(61.5, dataset=dataset, seed=seed, shots=n) for n in (1, 16)]
    assert shown(*runs) == [
        ("best of all, against CoOp", "+1.50 points", "CoOp+PUN: wins 8 of 8 pairs"),
        ("average accuracy at 16 shots", "61.5 %", "CoOp+PUN 61.5; CoOp 60.0"),
        ("agrees with the paper", "not comparable", "bundled data"),
    ]


def test_cards_of_one_seed() -> None:
    assert shown(a_run(60.0), pun(59.0)) == [
        (
            *("best difference to CoOp", "\N{MINUS SIGN}1.00 points"),
            "CoOp+PUN: wins 0 of 1 pair, from one seed",
        ),
        ("accuracy on EmojiFood at 1 shot", "60.0 %", "CoOp 60.0"),
        ("agrees with the paper", "not comparable", "bundled data"),
    ]


def test_an_average_that_misses_datasets_is_not_the_best() -> None:
    runs = [a_run(60.0, dataset=name) for name in ("A", "B")]
    _, accuracy, paper = shown(*runs, a_run(99.0, "PLOT", "A"))
    assert accuracy[1:] == ("60.0 %", "CoOp 60.0")
    assert paper[2] == "no such setting"


def test_base_to_new_and_transfer() -> None:
    half = a_run(80.0, shots=16, subsample_classes="base")
    new = a_test(half, 40.0, subsample_classes="new")
    assert shown(half, new)[1][:2] == ("H on EmojiFood at 16 shots", "53.3 %")
    runs: list[dict[str, Any]] = []
    for source, accuracy in ((a_run(70.0, shots=16), 50.0), (pun(70.0, shots=16), 52.0)):
        runs += [source, a_test(source, accuracy, "EmojiAnimals")]
    assert shown(*runs)[1][:2] == ("average accuracy on targets at 16 shots", "52.0 %")


def test_numbers_of_the_paper() -> None:
    runs = like_the_paper(2)
    assert shown(*runs)[2][1].split(" of ")[1] == "403"  # 385 of Table A5, and 18 like them
    one_seed = [run for run in runs if run["seed"] == 1]
    assert shown(*one_seed)[2][1:] == ("not comparable", "one seed has no standard deviation")


def described(*runs: dict[str, Any], sweep: SweepStatus | None = None) -> list[str]:
    return describe_runs(name_rows(runs).runs, sweep)


def test_what_was_run() -> None:
    origin: dict[str, Any] = {"finished": 86400.0, "train_seconds": 3600.0}
    origin["provenance"] = {"commit": "c" * 40}
    assert described(a_run(1.0, **origin), a_run(1.0, seed=2, shots=4, **origin)) == [
        *("mini", "1 dataset", "1, 4 shots", "2 seeds", "2 runs found", "commit ccccccc"),
        *("1970-01-02", "2 CPU hours of training"),
    ]
    assert "1 shot" in described(a_run(1.0))


@pytest.mark.parametrize(("missing", "text"), [(0, "2 runs, all done"), (1, "2 of 3 runs done")])
def test_whether_it_is_complete(missing: int, text: str) -> None:
    done = {Path("a"): "CoOp", Path("b"): "CoOp"}
    sweep = SweepStatus("a.yaml", done, missing * [("CoOp", a_run(None))], ["CoOp"])
    assert text in described(a_run(1.0), sweep=sweep)


def test_calibration_and_cost_at_the_most_shots() -> None:
    runs = [a_run(60.0 + seed, seed=seed, shots=4, ece=seed, parameters=2048) for seed in (1, 2)]
    group = pun(70.0, shots=4, train_seconds=8.0, vectorised=4)  # each of four runs took 2 s
    table = measures_table(name_rows([*runs, a_run(50.0), group]).runs)
    assert table is not None
    assert texts(table) == [
        ["method", "accuracy", "ECE", "training, s", "parameters"],
        ["CoOp", "61.5", "1.5", "1.5", "2048"],
        ["CoOp+PUN", "70.0", "\N{EN DASH}", "2.0", "\N{EN DASH}"],
    ]
    assert "At 4 shots" in table.caption
