"""The shell scripts as a user starts them."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from tests.helpers.runs import ROOT

# One epoch on one view of one picture a class.
SHORT = "OPTIM.MAX_EPOCH 1 INPUT.TRAIN_VIEWS 1 OPTIM.WARMUP_EPOCH -1 TEST.SPLIT val"
# Stands in for Python: records its arguments, finishes train.py's run and names one finished run.
RECORDER = """#!/usr/bin/env bash
[[ $1 != -c ]] || shift 3
[[ $1 != nemesis ]] || shift
printf '%q ' "$@" >>"$COMMANDS"
echo >>"$COMMANDS"
if [[ " $* " == *" --folders "* ]]; then echo "a run"; fi
if [[ $1 == */train.py ]]; then
    mkdir -p "$5"
    echo '"status": "finished"' >"$5/results.json"
fi
"""


def script(
    name: str, output: Path, *arguments: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Start a script in the folder that contains `output`."""
    given = {"PYTHON": sys.executable, "OUTPUT": str(output), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", str(ROOT / "scripts" / f"{name}.sh"), *arguments],
        env={**os.environ, **given, **settings},
        cwd=output.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def recorded(name: str, folder: Path, *arguments: str, **settings: str) -> list[list[str]]:
    """Return the commands that a script starts: a verb of nemesis, or train.py, and its words."""
    recorder, commands = folder / "python", folder / "commands"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    commands.write_text("")
    given = {"PYTHON": str(recorder), "COMMANDS": str(commands), **settings}
    done = script(name, folder / "my runs", *arguments, **given)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in commands.read_text().splitlines()]
