"""Whole runs of train.py on the bundled benchmark, as a user types them."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import train
from safeio.checksums import read_verified_json

Capture = pytest.CaptureFixture[str]
SECONDS = 240.0  # everything that a test waits for has happened by then
ROOT = Path(__file__).parents[2]
SHORT = ("OPTIM.MAX_EPOCH", "3", "DATASET.NUM_SHOTS", "1")
ONE_EPOCH = ("OPTIM.MAX_EPOCH", "1", "DATASET.NUM_SHOTS", "1")
# One epoch, and one validation image a class of half the classes: small enough for CoCoOp.
FEW = ("OPTIM.MAX_EPOCH", "1", "TEST.SPLIT", "val", "DATASET.SUBSAMPLE_CLASSES", "base")


def command(
    output: Path,
    data_root: Path,
    *extra: str,
    trainer: str = "CoOp",
    dataset: str = "activities",
    config: str = "",
    configured_as: str = "",
) -> list[str]:
    """The arguments of a run with the bundled CLIP and seed 1.

    Args:
        output: the run's folder.
        data_root: the data folder.
        extra: further arguments.
        trainer: CoOp and its Nemesis variant learn 16 generic vectors, unless a config is named.
        dataset: one of the emoji datasets, or the stem of another dataset's configuration.
        config: the stem of the trainer's configuration.
        configured_as: the trainer whose configuration files are taken; by default `trainer`.
    """
    method = configured_as or trainer
    config = config or ("mini_ctx16" if method in ("CoOp", "CoOpNemesis") else "mini")
    data = ROOT / f"configs/datasets/{dataset}.yaml"
    if not data.is_file():
        data = data.with_stem(f"emoji_{dataset}")
    return [
        *("--root", str(data_root), "--trainer", trainer),
        *("--dataset-config-file", str(data)),
        *("--config-file", str(ROOT / f"configs/trainers/{method}/{config}.yaml")),
        *("--output-dir", str(output), "--seed", "1", *extra),
    ]


def results(output: Path) -> dict[str, Any]:
    """The content of a run's results.json."""
    return read_verified_json(output / "results.json")


def finish(arguments: list[str]) -> None:
    """Run and expect success."""
    assert train.main(arguments) == 0


def finish_in(checkout: Path, arguments: list[str]) -> None:
    """Run train.py of a copy of the checkout in a new process, and expect success."""
    # -c instead of the script: Python would look for packages next to the link's target.
    start = "import sys, train; sys.exit(train.main(sys.argv[1:]))"
    words = [sys.executable, "-c", start, *arguments]
    done = subprocess.run(words, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def wait_for(path: Path, ended: Callable[[], object], anew: bool = False) -> None:
    """Wait until a file exists or is written anew, unless `ended` returns something true before."""

    def written() -> int:
        return path.stat().st_mtime_ns if path.exists() else 0

    deadline, before = time.monotonic() + SECONDS, written() if anew else 0
    while written() == before:
        end = ended()
        assert not end, f"Ended without {path}: {end}"
        assert time.monotonic() < deadline, f"{path} is not written after {SECONDS} s"
        time.sleep(0.002)


def refuse(arguments: list[str], capsys: Capture) -> str:
    """Run, expect exit code 2, and return the one sentence that the user reads."""
    capsys.readouterr()
    code = train.main(arguments)
    printed = capsys.readouterr().err
    assert code == 2, printed
    (message,) = printed.strip().splitlines()
    assert message.startswith("error: ")
    return message
