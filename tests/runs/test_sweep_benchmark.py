"""benchmarks/sweep.py: both ways do all runs, and the report says how long they took."""

import json
from pathlib import Path

import pytest

from benchmarks import sweep as sweep_benchmark


def test_the_report(tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--runs", "2", "--root", str(data_root), "--output-dir", str(tmp_path)]
    assert sweep_benchmark.main(arguments) == 0
    found = json.loads((tmp_path / "sweep_benchmark.json").read_text())
    assert found["ratio"] == found["train_py_seconds"] / found["sweep_py_seconds"] > 0
    assert 0 < found["start_up_seconds"]["median"] <= found["start_up_seconds"]["max"]
    assert ["ratio", f"{found['ratio']:.2f}"] in [
        line.split() for line in capsys.readouterr().out.splitlines()
    ]


def test_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep_benchmark.main(["--runs", "0"]) == 2
    assert "must be at least 1" in capsys.readouterr().err
