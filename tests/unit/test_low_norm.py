"""The occurrence frequency counted by hand, and the tables made of it."""

import pytest

from nemesis.low_norm.corruption import Corruption
from nemesis.low_norm.frequency import SeedMean, group_by_seed
from nemesis.low_norm.study import Study
from nemesis.low_norm.tables import frequency_table, frequency_tables
from safeio.errors import UserError

SETTINGS = [("replace", 0.1), ("rescale", 0.1), ("rescale", 0.5), ("rescale", 2.0)]
# Correct of 100 at positions 0, 1, 2; the learned prompts get 50 (seed 1) and 60 (seed 2).
COUNTS = {
    # +4 and -2: better in the mean; +1 and -1: a tie; worse with both
    ("rescale", 0.1): [(54, 58), (51, 59), (40, 40)],
    ("rescale", 0.5): [(51, 61), (52, 60), (50, 61)],
    ("rescale", 2.0): [(0, 0), (50, 60), (49, 60)],
    ("replace", 0.1): [(50, 61), (50, 60), (49, 60)],
}
NORMS = {("replace", 0.1): 1.5, ("rescale", 0.1): 0.1, ("rescale", 0.5): 0.5, ("rescale", 2.0): 2.0}


def a_study(seed: int, method: str = "CoOp", shots: int = 1) -> Study:
    run = {"method": method, "dataset": "Pets", "shots": shots, "seed": seed}
    study = Study(run, {}, 0, "test", 100)
    correct = (50, 60)[seed - 1]
    study.original = {"correct": correct, "accuracy": correct, "norms": [1.0, 1.0, 1.0]}
    for setting, rows in COUNTS.items():
        for j, counts in enumerate(rows):
            study.add(Corruption(*setting, j), counts[seed - 1], NORMS[setting])
    return study


def test_means_over_seeds_are_compared() -> None:
    cell = SeedMean([a_study(1), a_study(2)])
    assert cell.accuracy == 55
    assert [cell.frequency(setting) for setting in SETTINGS] == [1, 1, 3, 0]
    position = cell.positions(("rescale", 0.1))[0]
    assert (position.accuracy, position.norm, position.original_norm) == (56, 0.1, 1.0)
    assert cell.low_norm_frequency(SETTINGS) == 4
    assert cell.norm_change(("rescale", 0.5)) == -0.5
    one = SeedMean([a_study(1)])
    assert [one.frequency(setting) for setting in SETTINGS] == [0, 2, 2, 0]


def test_a_setting_that_was_not_tried_everywhere_has_no_frequency() -> None:
    partly = a_study(2)
    del partly.entries[Corruption("rescale", 0.1, 2)]
    cell = SeedMean([a_study(1), partly])
    assert cell.frequency(("rescale", 0.1)) is None
    assert sorted(cell.positions(("rescale", 0.1))) == [0, 1]
    assert cell.low_norm_frequency(SETTINGS) is None
    assert cell.frequency(("rescale", 7.0)) is None


def test_tables() -> None:
    studies = [a_study(1), a_study(2), a_study(1, shots=4), a_study(1, method="CoOp+PUN")]
    cells = group_by_seed(studies)
    rescale = frequency_table(cells, SETTINGS, "rescale")
    assert rescale.columns[-4:] == ["factor 0.1", "factor 0.5", "factor 2", "low-norm"]
    assert [[str(cell) for cell in row] for row in rescale.cells] == [
        ["CoOp", "Pets", "1", "2", "3", "1 ↓", "3 ↓", "0 ↑", "4"],
        ["CoOp", "Pets", "4", "1", "3", "2 ↓", "2 ↓", "0 ↑", "4"],
        ["CoOp+PUN", "Pets", "1", "1", "3", "2 ↓", "2 ↓", "0 ↑", "4"],
    ]
    replace, again = frequency_tables(cells, SETTINGS)
    assert str(replace.cells[0][-1]) == "1 ↑" and "standard deviations" in replace.markdown()
    assert again == rescale


def test_what_is_no_repetition_is_refused() -> None:
    with pytest.raises(UserError, match="CoOp on Pets, 1 shots have the same seed"):
        group_by_seed([a_study(1), a_study(1)])
    longer = a_study(2)
    longer.original["norms"].append(1.0)
    with pytest.raises(UserError, match="different lengths"):
        group_by_seed([a_study(1), longer])
