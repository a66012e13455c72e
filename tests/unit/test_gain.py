"""Gains beside the Low-Norm Effect: pairs, correlations and PAN's selections, by hand."""

from typing import Any

import pytest

from nemesis.low_norm import gain
from nemesis.low_norm.corruption import RESCALE
from nemesis.low_norm.frequency import SeedMean
from nemesis.low_norm.study import Study

HALF = (RESCALE, 0.5)


def run(dataset: str, shots: int, seed: int, accuracy: float) -> dict[str, Any]:
    return {"dataset": dataset, "shots": shots, "seed": seed, "accuracy": accuracy}


def study(changes: list[int], dataset: str = "A", shots: int = 1, seed: int = 1) -> Study:
    """Prompts that classify 50 of 100 images, and 50 + change with a vector halved."""
    made = Study({"dataset": dataset, "shots": shots, "seed": seed, "method": "CoOp"}, {}, 0)
    made.num_test = 100
    made.original = {"correct": 50, "accuracy": 50.0, "norms": [1.0] * len(changes)}
    for position, change in enumerate(changes):
        made.add(gain.Corruption(*HALF, position), 50 + change, 0.5)
    return made


RUNS = [
    *(("CoOp", run("A", 1, seed, 50.0)) for seed in (1, 2)),
    ("CoOp", run("A", 4, 1, 60.0)),
    ("CoOp", run("B", 1, 1, 70.0)),
    *(("PUN", run("A", 1, seed, 50.0 + seed)) for seed in (1, 2, 3)),  # seed 3 has no pair
    ("PUN", run("A", 4, 1, 59.0)),
    ("PUN", run("B", 1, 1, 70.5)),
]


def test_rows_are_paired_by_dataset_shots_and_seed() -> None:
    (row,) = gain.gains_of_rows(RUNS, "CoOp")
    assert row.label == "PUN"
    assert row.by_place == {("A", 1): [1.0, 2.0], ("A", 4): [-1.0], ("B", 1): [0.5]}
    mean, error = row.over_shots()[1]
    assert mean == pytest.approx(3.5 / 3) and error == pytest.approx((7 / 12 / 3) ** 0.5)
    assert row.over_shots()[4] == (-1.0, 0.0)


def test_the_gain_is_correlated_with_the_frequency_of_the_effect() -> None:
    cells = [
        SeedMean([study([1, 1, -1])]),
        SeedMean([study([-1, -1, -1], shots=4)]),
        SeedMean([study([0, 1, 0], dataset="B")]),
    ]
    frequencies = gain.frequencies_of(cells, [HALF])
    assert frequencies == {("A", 1): 2, ("A", 4): 0, ("B", 1): 1}
    rows = gain.gains_of_rows(RUNS, "CoOp")
    found = rows[0].with_frequency(frequencies)
    assert found is not None and found.rho == pytest.approx(1.0)
    text = gain.correlation_table(rows, frequencies).markdown()
    assert "+0.62" in text and "3 / 1 of 4" in text and "+1.00" in text
    text = gain.gain_table(rows, frequencies, 3).markdown()
    assert "+1.50" in text and "of 3 positions" in text


def test_no_correlation_without_variation_or_data() -> None:
    assert gain.spearman([1, 2], [1, 2]) is None
    assert gain.spearman([1, 1, 1], [1, 2, 3]) is None


def test_selections_agree_with_the_study_of_the_prompts() -> None:
    history: list[dict[str, Any]] = [
        {"event": "train", "selections": [5, 0, 1]},
        {"event": "test"},
        {"event": "train", "selections": [4, 1, 2]},
    ]
    selected = gain.selections(history)
    assert selected == [9, 1, 3]
    found = gain.agreement(selected, study([3, -2, 0]), 0.5)
    assert found is not None and found.rho == pytest.approx(1.0)
    assert gain.agreement(selected, study([3, -2, 0]), 0.1) is None  # not tested
    assert gain.selections([{"event": "train"}]) is None
    table = gain.agreement_table({1: [1.0, -0.5], 4: [0.25]}, "PAN").markdown()
    assert "+0.25" in table and "2 of 3" in table
