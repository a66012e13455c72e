"""The report's numbers equal those that an earlier version wrote for the same runs."""

import csv
from pathlib import Path

from nemesis.commands import report
from tests.helpers.report_golden import GOLDEN, every_protocol, fill_sweep
from tests.helpers.report_runs import report_of, write
from tests.helpers.runs import ROOT

KEYS = ("method", "dataset", "shots", "column", "on", "paper_table")
FREE_TEXT = {"note"}


def rows_of(path: Path) -> dict[tuple[str, ...], dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    by_key = {tuple(row.get(key, "") for key in KEYS): row for row in rows}
    assert len(by_key) == len(rows) > 0
    return by_key


def compare(expected: Path, output: Path) -> None:
    for path in sorted(expected.iterdir()):
        stored, new = rows_of(path), rows_of(output / path.name)
        assert stored.keys() == new.keys(), path.name
        for key, row in stored.items():
            assert {name: new[key][name] for name in row if name not in FREE_TEXT} == {
                name: value for name, value in row.items() if name not in FREE_TEXT
            }


def test_tables_of_every_protocol(tmp_path: Path) -> None:
    runs = write(tmp_path / "runs", *every_protocol())
    compare(GOLDEN / "coop", report_of(runs))
    compare(GOLDEN / "cocoop", report_of(runs, "--baseline", "CoCoOp", "--test", "t"))


def test_table_of_an_unfinished_sweep(tmp_path: Path) -> None:
    path = ROOT / "configs/sweeps/figure_2.yaml"
    fill_sweep(path, tmp_path / "runs", missing=20, profile="mini_words")
    sweep = ("--sweep", str(path), "--profile", "mini_words")
    made = tmp_path / "made"
    assert report.main([str(tmp_path / "runs"), *sweep, "--output-dir", str(made)]) == 0
    compare(GOLDEN / "sweep", made)
