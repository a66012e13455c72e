"""nemesis report from hand-made runs: numbers and names of rows, files for people and programs."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from nemesis.report.accuracy import make_tables
from nemesis.report.figures import drawable
from nemesis.report.settings import name_rows
from tests.helpers.report_runs import a_run, a_test, pun, report_of, table, write
from tests.helpers.runs import command, finish


def records(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


RUNS = [
    a_run(40.0, "ZeroshotCLIP", shots=0),
    *(a_run(60.0 + seed, seed=seed) for seed in (1, 2, 3)),
    *(a_run(70.0 + seed, seed=seed, shots=16) for seed in (1, 2)),
    *(a_run(80.0 - seed, "CoOp", "EmojiAnimals", seed=seed) for seed in (1, 2, 3)),
    *(pun(61.0 + seed, seed=seed) for seed in (1, 2, 3)),
]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return write(tmp_path / "runs", *RUNS)


def test_csv_holds_every_number(runs: Path) -> None:
    rows = records(report_of(runs) / "few_shot.csv")
    (cell,) = [row for row in rows if (row["dataset"], row["shots"]) == ("EmojiFood", "16")]
    assert cell["method"] == "CoOp"
    assert (cell["mean"], cell["std"], cell["seeds"]) == ("71.5", "0.707107", "2")
    assert (cell["accuracies"], cell["lacks"]) == ("71.0 72.0", "2 of 3 seeds")


def test_figures(runs: Path) -> None:
    write(runs / "more", pun(75.0, shots=16))
    output = report_of(runs)
    for name in ("accuracy_over_shots", "difference_over_shots", "difference_by_dataset"):
        assert (output / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (output / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert f"({name}.png)" in (output / "report.md").read_text(encoding="utf-8")


def test_averages_that_miss_datasets_are_not_drawn() -> None:
    """They would jump; they are in the table alone."""
    drawn = drawable(make_tables(name_rows(RUNS).runs).over_shots)
    assert [key for key in drawn if key[1] == "average"] == [("CoOp", "average", 1)]


def test_the_same_runs_make_the_same_files(runs: Path) -> None:
    first = {path.name: path.read_bytes() for path in report_of(runs).iterdir()}
    second = {path.name: path.read_bytes() for path in report_of(runs).iterdir()}
    assert first == second


def labels(*runs: dict[str, Any], by: tuple[str, ...] = ()) -> list[str]:
    return [label for label, _ in name_rows(runs, by).runs]


def test_rows_are_named_by_what_differs() -> None:
    assert labels(
        a_run(1.0),
        pun(1.0, nemesis={"OMEGA": 1.0}),
        pun(1.0, nemesis={"OMEGA": 10.0}),
        pun(1.0, nemesis={"BETA": 0.0, "TAU": 0.1}),
        pun(1.0, nemesis={"BETA": 0.0, "TAU": 0.9}),
    ) == [
        "CoOp",
        "CoOp+PUN (omega 1)",
        "CoOp+PUN (omega 10)",
        "CoOp+PAN (tau 0.1)",
        "CoOp+PAN (tau 0.9)",
    ]


def test_what_differs_only_between_data_or_shots_names_no_row() -> None:
    """Such as the papers' epochs, or an omega of each dataset's own."""
    assert (
        labels(
            pun(1.0, shots=1),
            pun(1.0, shots=16),
            pun(1.0, dataset="EmojiAnimals", nemesis={"OMEGA": 50.0}),
        )
        == ["CoOp+PUN"] * 3
    )


def test_settings_that_go_with_others_stay_out_of_the_name() -> None:
    rows = name_rows(
        [
            pun(1.0, nemesis={"OMEGA": 1.0, "SCHEDULE": "logistic"}),
            pun(1.0, nemesis={"OMEGA": 50.0, "SCHEDULE": "constant"}),
        ]
    )
    assert [label for label, _ in rows.runs] == ["CoOp+PUN (omega 1)", "CoOp+PUN (omega 50)"]
    assert rows.implied == {"CoOp+PUN": ["TRAINER.NEMESIS.SCHEDULE"]}


def test_an_evaluation_is_named_by_the_run_it_tests() -> None:
    first, second = (pun(1.0, nemesis={"OMEGA": omega}) for omega in (1.0, 2.0))
    assert labels(first, second, a_test(second, 1.0, "EmojiAnimals"))[-1] == "CoOp+PUN (omega 2)"


def test_rows_can_be_named_by_traits() -> None:
    both = [a_run(1.0), a_run(2.0, backbone="RN50")]
    assert labels(*both, by=("backbone",)) == ["CoOp (backbone mini)", "CoOp (backbone RN50)"]


def test_real_runs(tmp_path: Path, data_root: Path) -> None:
    """What train.py leaves behind is what the report reads."""
    short = ("OPTIM.MAX_EPOCH", "1", "DATASET.NUM_SHOTS", "1")
    finish(command(tmp_path / "runs" / "a", data_root, *short))
    finish(command(tmp_path / "runs" / "b", data_root, *short, trainer="CoOpNemesis"))
    found = json.loads((tmp_path / "runs" / "a" / "results.json").read_text())
    cells = table(report_of(tmp_path / "runs") / "few_shot.md")
    assert [row[:2] for row in cells[1:]] == [
        ["EmojiActivities", "CoOp"],
        ["EmojiActivities", "CoOp+PUN"],
    ]
    assert cells[1][2] == f"{found['accuracy']:.1f}"
