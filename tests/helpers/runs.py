"""Whole runs of train.py on the bundled benchmark, as a user types them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import train
from safeio.checksums import read_verified_json

ROOT = Path(__file__).parents[2]
SHORT = ("OPTIM.MAX_EPOCH", "3", "DATASET.NUM_SHOTS", "1")


def command(
    output: Path,
    data_root: Path,
    *extra: str,
    trainer: str = "CoOp",
    dataset: str = "activities",
    config: str = "",
) -> list[str]:
    """The arguments of a run on one of the emoji datasets with the bundled CLIP, seed 1.

    Unless a config is named, CoOp and its Nemesis variant learn 16 generic vectors.
    """
    config = config or ("mini_ctx16" if trainer in ("CoOp", "CoOpNemesis") else "mini")
    return [
        *("--root", str(data_root)),
        *("--trainer", trainer),
        *("--dataset-config-file", str(ROOT / f"configs/datasets/emoji_{dataset}.yaml")),
        *("--config-file", str(ROOT / f"configs/trainers/{trainer}/{config}.yaml")),
        *("--output-dir", str(output)),
        *("--seed", "1"),
        *extra,
    ]


def results(output: Path) -> dict[str, Any]:
    """The run's results.json, which is what was written."""
    return read_verified_json(output / "results.json")


def finish(arguments: list[str]) -> None:
    """Run and expect success."""
    assert train.main(arguments) == 0


def finish_in(checkout: Path, arguments: list[str]) -> None:
    """Run train.py of a copy of the checkout in a new process, and expect success."""
    # -c instead of the script: Python would look for the packages beside the link's target.
    start = "import sys, train; sys.exit(train.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", start, *arguments],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def refuse(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run, expect the user's mistake, and return the one sentence that says it."""
    capsys.readouterr()
    code = train.main(arguments)
    printed = capsys.readouterr().err
    assert code == 2, printed
    (message,) = printed.strip().splitlines()
    assert message.startswith("error: ")
    return message
