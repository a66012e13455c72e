"""From finished runs to tables and figures: methods are told apart, gaps stay visible."""

import json
from pathlib import Path
from typing import Any

import pytest

from nemesis.report.figures import plot_accuracy_over_shots
from nemesis.report.results import accuracy_table, collect_runs, method_of, summarise


def a_run(trainer: str, accuracy: float, shots: int = 1, beta: float = 1.0) -> dict[str, Any]:
    return {
        "trainer": trainer,
        "dataset": "Pets",
        "shots": shots,
        "accuracy": accuracy,
        "status": "finished",
        "config": {"TRAINER": {"NEMESIS": {"BETA": beta}}},
    }


RUNS = [
    a_run("ZeroshotCLIP", 50.0, shots=0),
    a_run("CoOp", 60.0),
    a_run("CoOp", 62.0),
    a_run("CoOp", 70.0, shots=4),
    a_run("CoOpNemesis", 63.0, beta=1.0),
    a_run("CoOpNemesis", 65.0, beta=0.0),
]


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
    assert method_of(a_run(trainer, 0.0, beta=beta)) == name


def test_table() -> None:
    rows = accuracy_table(summarise(RUNS), (1, 4)).splitlines()[2:]
    cells = [[cell.strip() for cell in row.split("|")[2:-1]] for row in rows]
    assert cells == [
        ["ZeroshotCLIP", "50.0", "50.0"],
        ["CoOp", "61.0 ± 1.4", "70.0"],
        ["CoOp+PAN", "65.0", "-"],
        ["CoOp+PUN", "63.0", "-"],
    ]


def test_unfinished_runs_do_not_count(tmp_path: Path) -> None:
    for number, run in enumerate([a_run("CoOp", 60.0), {**a_run("CoOp", 1.0), "status": "begun"}]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "results.json").write_text(json.dumps(run))
    assert [run["accuracy"] for run in collect_runs(tmp_path)] == [60.0]


def test_figure(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    plot_accuracy_over_shots(summarise(RUNS), (1, 4), path)
    assert path.read_bytes().startswith(b"\x89PNG")
