"""Files of other people's repositories run on our `dassl` and `clip` as they are.

    NEMESIS_FOREIGN_REPOSITORY=~/CoOp pytest tests/runs/test_other_repositories.py

tries every trainer, every dataset and every train.py below that folder (several are separated by
os.pathsep), one test for each file; pytest's `-rA` shows what each has registered and run.
Without the variable there is the small repository in tests/data alone.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from safeio.checksums import read_verified_json
from tests.helpers.foreign_repository import files_of
from tests.helpers.runs import ROOT

SMALL = ROOT / "tests" / "data" / "foreign_repository"
VARIABLE = "NEMESIS_FOREIGN_REPOSITORY"
GIVEN = [Path(p).expanduser() for p in os.environ.get(VARIABLE, "").split(os.pathsep) if p]
FILES = [(kind, path) for folder in GIVEN for kind, path in files_of(folder)]


def attempt(kind: str, file: Path, work: Path, *words: str) -> str:
    """What a file printed; fails with what it raised."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.helpers.foreign_repository",
            kind,
            str(file),
            str(work),
            *words,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    print(done.stdout[-2000:])
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_the_folder_is_there() -> None:
    for folder in GIVEN:
        assert files_of(folder), f"{VARIABLE}: {folder} holds no trainer, dataset or train.py"


@pytest.mark.skipif(not GIVEN, reason=f"{VARIABLE} names no folder")
@pytest.mark.parametrize(("kind", "file"), FILES, ids=[str(path) for _, path in FILES])
def test_a_file_of_a_repository(kind: str, file: Path, tmp_path: Path) -> None:
    assert attempt(kind, file, tmp_path)


def test_what_is_tried_of_the_small_repository() -> None:
    found = [(kind, str(path.relative_to(SMALL))) for kind, path in files_of(SMALL)]
    assert found == [
        ("train", "train.py"),
        ("trainer", "trainers/context.py"),
        ("trainer", "trainers/coop_nemesis.py"),
        ("trainer", "trainers/handwritten.py"),
        ("dataset", "datasets/squares.py"),
    ]


@pytest.mark.parametrize(
    ("kind", "file", "said"),
    [
        ("train", "train.py", ("ran train.py --trainer Context", "--trainer CoOpNemesis")),
        ("trainer", "trainers/coop_nemesis.py", ("ran CoOpNemesis", "registered CoOpNemesis")),
        ("trainer", "trainers/handwritten.py", ("ran Handwritten",)),
        ("dataset", "datasets/squares.py", ("built TheirSquares, second: 6 training images",)),
    ],
)
def test_the_small_repository(kind: str, file: str, said: tuple[str, ...], tmp_path: Path) -> None:
    printed = attempt(kind, SMALL / file, tmp_path)
    for part in said:
        assert part in printed


def test_a_file_that_fails_is_named(tmp_path: Path) -> None:
    (tmp_path / "theirs" / "trainers").mkdir(parents=True)
    file = tmp_path / "theirs" / "trainers" / "broken.py"
    file.write_text("from dassl.engine import TrainerY\n")
    with pytest.raises(AssertionError, match="TrainerY"):
        attempt("trainer", file, tmp_path / "work")


@pytest.mark.parametrize("beta", ["0.5", "None"])
def test_the_command_line_of_the_reference(beta: str, tmp_path: Path) -> None:
    words = (
        *("--root", "{data}", "--seed", "1", "--trainer", "CoOpNemesis"),
        *("--dataset-config-file", "configs/squares.yaml", "--config-file", "configs/tiny.yaml"),
        *("--output-dir", "{out}", "DATASET.NUM_SHOTS", "2", "USE_CUDA", "False"),
        *("TRAINER.CoOpNemesis.N_CTX", "5", "TRAINER.CoOpNemesis.NT", "one"),
        *("TRAINER.CoOpNemesis.BETA", beta),
    )
    assert f"BETA: {beta}\n" in attempt("train", SMALL / "train.py", tmp_path, *words)
    results = read_verified_json(tmp_path / "out" / "results.json")
    assert (results["trainer"], results["status"]) == ("CoOpNemesis", "finished")
    assert results["config"]["TRAINER"]["CoOpNemesis"]["BETA"] == (
        None if beta == "None" else float(beta)
    )
    assert (tmp_path / "data" / "squares" / "split_fewshot" / "shot_2-seed_1.pkl").is_file()
