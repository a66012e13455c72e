"""nemesis report from hand-made runs: numbers and names of rows, files for people and programs."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from nemesis.report.accuracy import make_tables
from nemesis.report.figures import drawable
from nemesis.report.settings import name_rows
from safeio.checksums import file_digest, read_verified_json, write_json_with_checksum
from tests.helpers.report_runs import a_run, a_test, pun, report_of, write

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


def test_figures(tmp_path: Path) -> None:
    made = [
        method(70.0, dataset=dataset, shots=shots)
        for method in (a_run, pun)
        for dataset in ("A", "B")
        for shots in (1, 16)
    ]
    output = report_of(write(tmp_path / "runs", *made))
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


def test_a_new_report_removes_the_files_of_the_earlier_one_and_no_others(tmp_path: Path) -> None:
    output = report_of(write(tmp_path / "runs", *RUNS))
    extra = {path.name for path in output.glob("accuracy_over_shots.*")}
    assert {f"accuracy_over_shots.{kind}" for kind in ("png", "pdf")} <= extra
    (output / "accuracy_over_shots.pdf").write_text("changed")
    (output / "mine.md").write_text("mine")
    record = output / ".report.json"
    outside = tmp_path / "outside"
    outside.write_text("mine")
    listed = {**read_verified_json(record), "../outside": file_digest(outside)}
    write_json_with_checksum(listed, record)
    before = {path.name for path in output.iterdir()}

    shutil.rmtree(tmp_path / "runs")
    report_of(write(tmp_path / "runs", a_run(40.0, "ZeroshotCLIP", shots=0)))
    after = {path.name for path in output.iterdir()}
    assert outside.exists() and {"mine.md", "accuracy_over_shots.pdf"} <= after
    assert "accuracy_over_shots.png" in before - after
    assert after == {*read_verified_json(record), record.name, "mine.md", "accuracy_over_shots.pdf"}


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
