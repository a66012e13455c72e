"""nemesis bench --loading: a small run ends with its table, and what it loads is what it says."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks import bench
from benchmarks.cost.loading import ENCODE, make_photographs, make_workloads
from benchmarks.cost.synthetic import Backbone
from dassl.data.images import read_image

# Newer versions of Python warn when a process with threads is forked, as loaders do.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_a_small_run_writes_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--loading", "--backbones", "mini", "--repetitions", "1", "--threads", "1"]
    assert bench.main([*given, "--output-dir", str(tmp_path / "bench")]) == 0
    assert (tmp_path / "bench" / "loading.md").read_text() in capsys.readouterr().out
    speeds = json.loads((tmp_path / "bench" / "loading.json").read_text())["speeds"]
    assert len(speeds) == 5
    assert {speed["images"] for speed in speeds} == {"500 PNG of 64 x 64"}
    (encoding,) = (speed for speed in speeds if speed["what"] == ENCODE)
    for speed in speeds:
        assert speed["ratio"] == pytest.approx(speed["per_second"] / encoding["per_second"])
        assert len(speed["runs"]) == 1


def test_photographs_are_loaded_and_encoded(tmp_path: Path) -> None:
    paths = make_photographs(tmp_path, 3)
    image = read_image(paths[2])
    assert image.size == (500, 375)
    assert 30_000 < Path(paths[2]).stat().st_size < 120_000  # as photographs of this size
    with Image.open(paths[2]) as file:
        assert file.format == "JPEG"
    for workload in make_workloads(Backbone.find("mini"), torch.device("cpu"), paths).values():
        workload()


def test_loading_has_no_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for extra in (["--cases", "coop"], ["--classes", "10"], ["--quick"]):
        assert bench.main(["--loading", *extra, "--output-dir", str(tmp_path / "bench")]) == 2
        assert "--loading" in capsys.readouterr().err
    assert not (tmp_path / "bench").exists()
