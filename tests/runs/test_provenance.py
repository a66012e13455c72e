"""Where numbers come from: what results.json says, and what the report makes of it."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dassl.data.datasets import Datum
from dassl.engine.provenance import code_state, data_hashes
from nemesis.commands import report
from tests.helpers.report_runs import a_run, refuse, write
from tests.helpers.runs import SHORT, command, finish, results


def test_a_run_says_where_it_comes_from(tmp_path: Path, data_root: Path) -> None:
    finish(command(tmp_path / "run", data_root, *SHORT))
    run = results(tmp_path / "run")
    origin = run["provenance"]
    assert {"commit", "dirty", "platform", "device_name", "threads", "data"} <= set(origin)
    assert set(origin["data"]) == {"train_x", "val", "test", "covers"}
    assert len(run["weights_sha256"]) == 64
    assert run["config"]["OPTIM"]["MAX_EPOCH"] == 3
    assert run["versions"]["torch"]
    finish(command(tmp_path / "other", data_root, "--seed", "2", *SHORT))
    other = results(tmp_path / "other")["provenance"]["data"]
    assert other["test"] == origin["data"]["test"]
    assert other["train_x"] != origin["data"]["train_x"]


class Parts:
    """A dataset of some images, all for testing."""

    def __init__(self, folder: Path, label: int = 0) -> None:
        self.test = [
            Datum(str(path), label, classname="cat") for path in sorted(folder.rglob("*.png"))
        ]


def test_the_data_hash(tmp_path: Path) -> None:
    """The same for a copy elsewhere; another with another name, label or size of a file."""
    first = tmp_path / "first" / "cats"
    first.mkdir(parents=True)
    for name in ("a", "b"):
        (first / f"{name}.png").write_bytes(b"12345")
    known = data_hashes(Parts(first))
    assert known
    copy = shutil.copytree(first, tmp_path / "elsewhere" / "pictures")
    assert data_hashes(Parts(copy)) == known
    assert data_hashes(Parts(copy, label=1)) != known
    (copy / "a.png").write_bytes(b"1234")
    assert data_hashes(Parts(copy)) != known
    (copy / "a.png").unlink()
    missing = Parts(first)
    (first / "a.png").unlink()
    assert data_hashes(missing) is None  # whoever opens the image says what is wrong
    assert data_hashes(object()) == {"covers": known["covers"]}


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    done = subprocess.run(
        ["git", *who, *arguments],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known and clean, changed, in no commit, without a repository, and without git."""
    import dassl.engine.provenance as module

    house = tmp_path / "house"
    house.mkdir()
    copy = house / "provenance.py"
    shutil.copy(module.__file__, copy)
    monkeypatch.setattr(module, "__file__", str(copy))

    def state() -> dict[str, Any]:
        code_state.cache_clear()
        return code_state()

    unknown = {"commit": None, "dirty": None}
    try:
        assert state() == unknown
        git(house, "init", "--quiet")
        assert state() == unknown  # another project's repository
        git(house, "add", ".")
        git(house, "commit", "--quiet", "-m", "first")
        commit = git(house, "rev-parse", "HEAD")
        assert state() == {"commit": commit, "dirty": False}
        monkeypatch.setenv("GIT_DIR", str(tmp_path))  # as in a hook
        copy.write_text("# changed")
        assert state() == {"commit": commit, "dirty": True}
        monkeypatch.setenv("PATH", str(tmp_path))
        assert state() == unknown
    finally:
        code_state.cache_clear()


def a_known_run(seed: int, accuracy: float = 50.0, **origin: Any) -> dict[str, Any]:
    data = {"test": "a" * 64, "train_x": str(seed) * 64, **origin.pop("data", {})}
    return a_run(
        accuracy + seed,
        seed=seed,
        provenance={"commit": "c" * 40, "dirty": False, "data": data, **origin},
    )


def test_the_report_refuses_other_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = a_known_run(2, data={"test": "b" * 64})
    runs = write(tmp_path / "runs", a_known_run(1), other)
    said = refuse(capsys, runs, "--output-dir", tmp_path / "report")
    assert "differ in test data (SHA-256)" in said and "--allow-mixed" in said
    assert report.main([str(runs), "--output-dir", str(tmp_path / "made"), "--allow-mixed"]) == 0
    assert "mixes runs that differ in test data" in (tmp_path / "made" / "report.md").read_text()


def test_the_report_refuses_another_draw_of_the_same_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows are compared seed by seed, so that a seed must stand for the same images."""
    pun = a_known_run(1, data={"train_x": "d" * 64})
    runs = write(tmp_path / "runs", a_known_run(1), {**pun, "dataset": "EmojiFood", "shots": 1})
    said = refuse(capsys, runs, "--output-dir", tmp_path / "report")
    assert "training data" in said or "two runs" in said


def test_other_commits_are_a_note(tmp_path: Path) -> None:
    runs = write(tmp_path / "runs", a_known_run(1), a_known_run(2, commit="e" * 40, dirty=True))
    assert report.main([str(runs), "--output-dir", str(tmp_path / "made")]) == 0
    page = (tmp_path / "made" / "report.md").read_text()
    assert "The runs come from 2 commits of the code; see Versions." in page
    assert "1 run comes from code with uncommitted changes." in page
    assert "cccccccc" in (tmp_path / "made" / "versions.md").read_text()


def test_precisions_never_share_a_row(tmp_path: Path) -> None:
    """The setting names rows of its own."""
    first, second = a_known_run(1), a_known_run(2)
    first["config"]["TRAINER"]["COOP"]["PREC"] = "fp32"
    second["config"]["TRAINER"]["COOP"]["PREC"] = "fp16"
    runs = write(tmp_path / "runs", first, second)
    assert report.main([str(runs), "--output-dir", str(tmp_path / "made")]) == 0
    page = (tmp_path / "made" / "report.md").read_text()
    assert "CoOp (prec fp16)" in page and "CoOp (prec fp32)" in page
    assert "Not all rows are comparable: precision is" in page
