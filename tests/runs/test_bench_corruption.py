"""nemesis bench --corruption: both sides count the same images, and the report says so."""

import json
from pathlib import Path

import pytest

from benchmarks import bench


def test_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--backbones", "mini", "--classes", "3", "--repetitions", "1", "--threads", "1"]
    assert bench.main(["--corruption", *few, "--output-dir", str(tmp_path)]) == 0
    assert (tmp_path / "corruption.md").read_text() in capsys.readouterr().out
    content = json.loads((tmp_path / "corruption.json").read_text())
    seconds = [content[key] for key in ("plain", "ours", "command", "first_command")]
    assert min(seconds) > 0
    assert content["ratio"] == content["plain"] / content["ours"] and content["target"] == 100
    assert content["difference"] == 0


@pytest.mark.parametrize("flag", ["--quick", "--targets"])
def test_one_thing_at_a_time(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--corruption", flag]) == 2
    assert "not allowed with" in capsys.readouterr().err
