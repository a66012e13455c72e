"""Files of third-party repositories run unmodified on our `dassl` and `clip`.

    NEMESIS_FOREIGN_REPOSITORY=~/CoOp pytest tests/runs/test_other_repositories.py

tries every trainer, dataset and train.py below that folder (several are separated by os.pathsep),
one test for each file; pytest's `-rA` shows what each has registered and run. Without the variable,
only the small repository in tests/data is tried.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.foreign_repository import files_of
from tests.helpers.runs import ROOT, results

SMALL = ROOT / "tests" / "data" / "foreign_repository"
VARIABLE = "NEMESIS_FOREIGN_REPOSITORY"
GIVEN = [Path(p).expanduser() for p in os.environ.get(VARIABLE, "").split(os.pathsep) if p]
FILES = [(kind, path) for folder in GIVEN for kind, path in files_of(folder)]


def attempt(kind: str, file: Path, work: Path, *words: str) -> str:
    """Return what a file printed; fails with the error that it raised."""
    module = (sys.executable, "-m", "tests.helpers.foreign_repository")
    done = subprocess.run(
        [*module, kind, str(file), str(work), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    print(done.stdout[-2000:])
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.skipif(not GIVEN, reason=f"{VARIABLE} names no folder")
@pytest.mark.parametrize(("kind", "file"), FILES, ids=[str(path) for _, path in FILES])
def test_a_file_of_a_repository(kind: str, file: Path, tmp_path: Path) -> None:
    assert attempt(kind, file, tmp_path)


TRIED = [
    ("train", "train.py", ("ran train.py --trainer Context", "--trainer CoOpNemesis")),
    ("trainer", "trainers/context.py", ("ran Context",)),
    ("trainer", "trainers/coop_nemesis.py", ("ran CoOpNemesis", "registered CoOpNemesis")),
    ("trainer", "trainers/handwritten.py", ("ran Handwritten",)),
    ("dataset", "datasets/squares.py", ("built TheirSquares, second: 6 training images",)),
]


def test_every_file_of_a_repository_is_tried() -> None:
    found = [(kind, str(path.relative_to(SMALL))) for kind, path in files_of(SMALL)]
    assert found == [(kind, file) for kind, file, _ in TRIED]
    for folder in GIVEN:
        assert files_of(folder), f"{VARIABLE}: {folder} holds no trainer, dataset or train.py"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "file", "parts"), TRIED)
def test_the_small_repository(kind: str, file: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    printed = attempt(kind, SMALL / file, tmp_path)
    for part in parts:
        assert part in printed


@pytest.mark.slow
def test_a_failing_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "theirs" / "trainers" / "broken.py"
    file.parent.mkdir(parents=True)
    file.write_text("from dassl.engine import TrainerY\n")
    with pytest.raises(AssertionError, match="TrainerY"):
        attempt("trainer", file, tmp_path / "work")


@pytest.mark.parametrize("beta", ["0.5", pytest.param("None", marks=pytest.mark.slow)])
def test_the_command_line_of_the_reference(beta: str, tmp_path: Path) -> None:
    words = (
        *("--root", "{data}", "--seed", "1", "--trainer", "CoOpNemesis"),
        *("--dataset-config-file", "configs/squares.yaml", "--config-file", "configs/tiny.yaml"),
        *("--output-dir", "{out}", "DATASET.NUM_SHOTS", "2", "USE_CUDA", "False"),
        *("TRAINER.CoOpNemesis.N_CTX", "5", "TRAINER.CoOpNemesis.NT", "one"),
        *("TRAINER.CoOpNemesis.BETA", beta),
    )
    assert f"BETA: {beta}\n" in attempt("train", SMALL / "train.py", tmp_path, *words)
    run = results(tmp_path / "out")
    assert (run["trainer"], run["status"]) == ("CoOpNemesis", "finished")
    expected = None if beta == "None" else float(beta)
    assert run["config"]["TRAINER"]["CoOpNemesis"]["BETA"] == expected
    assert (tmp_path / "data" / "squares" / "split_fewshot" / "shot_2-seed_1.pkl").is_file()
