"""Ctrl-C while a command imports what it needs."""

import signal
import subprocess
import sys

import pytest

from nemesis.__main__ import VERBS
from tests.helpers.runs import ROOT

ARGUMENTS = {"train": ["--trainer", "CoOp", "--config-file", "configs/trainers/CoOp/mini.yaml"]}
# A process that is started in the background inherits that Ctrl-C is ignored.
HEED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
IGNORE = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
# Called for each module that is imported: at the chosen one, Ctrl-C is pressed.
PRESS = """
import os, runpy, signal, sys
module, *sys.argv = sys.argv[1:]

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
if sys.argv[0] == "train.py":
    runpy.run_path("train.py", run_name="__main__")
else:
    runpy.run_module("nemesis", run_name="__main__", alter_sys=True)
"""


def press(command: str, module: str) -> subprocess.CompletedProcess[str]:
    """Start a command and press Ctrl-C when it imports a module."""
    start = ["train.py"] if command == "train" else ["nemesis", command]
    words = [module, *start, *ARGUMENTS.get(command, ["none", "none"])]
    return subprocess.run(
        [sys.executable, "-c", HEED + PRESS, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


@pytest.mark.parametrize(
    ("command", "module"),
    [
        *((command, "torch.nn") for command in ("predict", "train")),
        *(pytest.param(v, "torch.nn", marks=pytest.mark.slow) for v in VERBS if v != "predict"),
        *(("train", module) for module in ("dassl.utils", "numpy", "torchvision.transforms")),
    ],
)
def test_ctrl_c_while_a_command_imports(command: str, module: str) -> None:
    done = press(command, module)
    assert (done.returncode, done.stderr) == (130, "stopped by Ctrl-C\n")


def test_a_command_that_ignores_ctrl_c_goes_on() -> None:
    """A command in the background of a script, where shells let Ctrl-C be ignored."""
    words = ["dassl.utils", "train.py", "--trainer", "CoOp", "--load-epoch", "3"]
    done = subprocess.run(
        [sys.executable, "-c", IGNORE + PRESS, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 2


def test_imported_by_other_code_nothing_changes() -> None:
    code = (
        f"{HEED}import train\nfrom nemesis.commands import predict\n"
        "print(signal.getsignal(signal.SIGINT).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == signal.default_int_handler.__name__
