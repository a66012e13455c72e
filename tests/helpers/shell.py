"""The shell scripts as a user starts them, with short settings."""

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.runs import ROOT

# One epoch on one view of one picture a class.
SHORT = "OPTIM.MAX_EPOCH 1 INPUT.TRAIN_VIEWS 1 OPTIM.WARMUP_EPOCH -1"


def script(
    name: str, output: Path, *arguments: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Start a script as a user does, with one seed and one shot unless told otherwise."""
    given = {"PYTHON": sys.executable, "OUTPUT": str(output), "SEEDS": "1", "SHOTS": "1"}
    return subprocess.run(
        ["bash", str(ROOT / "scripts" / f"{name}.sh"), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **given, **settings},
        cwd=output.parent,
        capture_output=True,
        text=True,
        check=False,
    )
