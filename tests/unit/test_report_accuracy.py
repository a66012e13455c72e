"""The protocols' tables from hand-made results: means, averages, and what is missing."""

from typing import Any

import pytest

from nemesis.report.accuracy import make_tables
from nemesis.report.results import in_row_order, method_of
from nemesis.report.scores import harmonic_mean
from nemesis.report.settings import name_rows
from nemesis.report.table import DASH
from tests.helpers.report_runs import a_run, a_test, pun, texts


def cells(*runs: dict[str, Any], seeds: int = 0, over_shots: bool = False) -> list[list[str]]:
    """The header and rows of the only table of these runs."""
    (table,) = make_tables(in_row_order(name_rows(runs).runs), seeds, over_shots).tables
    return texts(table)


@pytest.mark.parametrize(
    ("trainer", "beta", "name"),
    [
        ("CoOp", 1.0, "CoOp"),
        ("PLOTNemesis", 1.0, "PLOT+PUN"),
        ("CoCoOpNemesis", 0.0, "CoCoOp+PAN"),
        ("CoOpNemesis", 0.3, "CoOp+PUN+PAN"),
    ],
)
def test_a_method_is_named_by_trainer_and_beta(trainer: str, beta: float, name: str) -> None:
    assert method_of(a_run(0.0, trainer, nemesis={"BETA": beta})) == name


def test_few_shot() -> None:
    """Mean and sample deviation by hand; the average is first, and states what is missing."""
    runs = [
        a_run(40.0, "ZeroshotCLIP", shots=0),
        *(a_run(60.0 + seed, seed=seed) for seed in (1, 2, 3)),
        *(a_run(70.0 + seed, seed=seed, shots=16) for seed in (1, 2)),
        *(a_run(80.0 - seed, dataset="EmojiAnimals", seed=seed) for seed in (1, 2, 3)),
        *(pun(61.0 + seed, seed=seed) for seed in (1, 2, 3)),
    ]
    assert cells(*runs) == [
        ["dataset", "method", "1 shot", "16 shots", "seeds"],
        ["average", "ZeroshotCLIP", "40.0 (1 of 2 datasets)", "40.0 (1 of 2 datasets)", DASH],
        # Each seed's average is 70, whatever the seed.
        ["average", "CoOp", "70.0 ± 0.0", "71.5 (1 of 2 datasets)", "3"],
        ["average", "CoOp+PUN", "63.0 (1 of 2 datasets)", DASH, DASH],
        ["EmojiAnimals", "CoOp", "78.0 ± 1.0", DASH, "3"],
        ["EmojiFood", "ZeroshotCLIP", "40.0", "40.0", "1"],
        ["EmojiFood", "CoOp", "62.0 ± 1.0", "71.5 ± 0.7 (2 of 3 seeds)", f"2{DASH}3"],
        ["EmojiFood", "CoOp+PUN", "63.0 ± 1.0", DASH, "3"],
    ]
    assert cells(*runs, seeds=5)[4][2] == "78.0 ± 1.0 (3 of 5 seeds)"


def test_different_seeds_have_no_common_deviation() -> None:
    runs = [a_run(60.0 + seed, seed=seed) for seed in (1, 2)]
    runs += [a_run(80.0 + seed, dataset="EmojiAnimals", seed=seed) for seed in (2, 3)]
    assert cells(*runs)[1][2] == "72.0"


def test_one_seed_has_no_deviation() -> None:
    (table,) = make_tables(name_rows([a_run(60.0)]).runs).tables
    assert table.caption == "Test accuracy in %, seed 1."
    assert texts(table) == [
        ["dataset", "method", "1 shot", "seeds"],
        ["EmojiFood", "CoOp", "60.0", "1"],
    ]


def test_mean_over_shots() -> None:
    runs = [
        a_run(60.0 + shots + seed, shots=shots, seed=seed) for shots in (1, 3) for seed in (1, 2)
    ]
    assert cells(*runs, over_shots=True)[1][-2:] == ["63.5 ± 0.7", "2"]
    assert cells(*runs[:-1], over_shots=True)[1][-2:] == ["63.2 (1 of 2 seeds)", f"1{DASH}2"]


@pytest.mark.parametrize(
    ("base", "new", "h"),
    [(80.8, 72.6, 76.5), (80.4, 73.2, 76.6), (80.3, 73.9, 77.0), (94.7, 97.7, 96.2), (5.0, 0.0, 0)],
)
def test_harmonic_mean_is_the_papers(base: float, new: float, h: float) -> None:
    """Nemesis, Table A4."""
    assert harmonic_mean(base, new) == pytest.approx(h, abs=0.05)


def half(accuracy: float, **entries: Any) -> dict[str, Any]:
    return a_run(accuracy, shots=16, subsample_classes="base", **entries)


def test_h_is_taken_of_the_averages() -> None:
    runs = []
    for dataset, seed, base, new in (
        ("Caltech101", 1, 80.0, 40.0),
        ("Caltech101", 2, 60.0, 60.0),
        ("EuroSAT", 1, 90.0, 80.0),
        ("EuroSAT", 2, 90.0, 90.0),
    ):
        source = half(base, dataset=dataset, seed=seed)
        runs += [source, a_test(source, new, subsample_classes="new")]
    assert cells(*runs) == [
        ["trained on", "method", "shots", "base", "new", "H", "seeds"],
        # 2 * 80 * 67.5 / 147.5, not the mean of 58.3 and 87.4
        ["average", "CoOp", "16", "80.0", "67.5", "73.2", DASH],
        # 2 * 70 * 50 / 120, not the mean of 53.3 and 60
        ["Caltech101", "CoOp", "16", "70.0 ± 14.1", "50.0 ± 14.1", "58.3", "2"],
        ["EuroSAT", "CoOp", "16", "90.0 ± 0.0", "85.0 ± 7.1", "87.4", "2"],
    ]


def test_base_to_new_shows_what_is_missing() -> None:
    first, second = (half(80.0, dataset="Caltech101", seed=seed) for seed in (1, 2))
    other = half(90.0, dataset="EuroSAT")
    rows = cells(first, second, a_test(first, 40.0, subsample_classes="new"), other)[1:]
    assert [row[3:-1] for row in rows] == [
        [f"{x} (1 of 2 datasets)" for x in ("80.0", "40.0", "53.3")],
        ["80.0 ± 0.0", "40.0 (1 of 2 seeds)", "53.3 (1 of 2 seeds)"],
        ["90.0 (1 of 2 seeds)", DASH, DASH],
    ]


def test_transfer() -> None:
    runs = []
    for seed, gain in ((1, 0.0), (2, 2.0)):
        source = a_run(70.0 + gain, dataset="ImageNet", seed=seed, shots=16)
        runs += [source, a_test(source, 60.0 + gain, "ImageNetV2")]
        runs += [a_test(source, 20.0, "ImageNetA")] * (seed == 1)
        runs += [a_test(source, 33.0 + gain, target_domains=["sketch"])]
    _, table = make_tables(name_rows(runs).runs).tables
    columns = ["average", "ImageNet", "ImageNetV2", "ImageNetA", "sketch"]
    assert texts(table) == [
        ["trained on", "method", "shots", *columns, "seeds"],
        [
            *("ImageNet", "CoOp", "16", "38.3 (1 of 2 seeds)", "71.0 ± 1.4", "61.0 ± 1.4"),
            *("20.0 (1 of 2 seeds)", "34.0 ± 1.4", f"1{DASH}2"),
        ],
    ]


def test_transfer_has_a_table_for_each_source() -> None:
    sources = a_run(70.0, dataset="Caltech101"), a_run(80.0, dataset="EuroSAT")
    tests = [a_test(source, 50.0, "UCF101") for source in sources]
    tables = make_tables(name_rows([*sources, *tests]).runs).tables
    assert [table.name for table in tables] == ["few_shot", "transfer", "transfer_2"]
    assert [table.columns[4] for table in tables[1:]] == ["Caltech101", "EuroSAT"]
