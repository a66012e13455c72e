"""Ctrl-C while a command imports what it needs."""

import signal
import subprocess
import sys

import pytest

from tests.runs import ROOT

COMMANDS = (
    "bench",
    "corrupt",
    "download",
    "export",
    "interpret",
    "predict",
    "report",
    "sweep",
    "train",
)
ARGUMENTS = {"train": ["--trainer", "CoOp", "--config-file", "configs/trainers/CoOp/mini.yaml"]}
# A process that is started in the background inherits that Ctrl-C is ignored.
HEED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
IGNORE = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
# Called for each module that is imported: at the chosen one, Ctrl-C is pressed.
PRESS = """
import os, runpy, signal, sys
script, module, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = script
sys.path.insert(0, os.path.dirname(script))

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
runpy.run_path(script, run_name="__main__")
"""


def press(command: str, module: str) -> subprocess.CompletedProcess[str]:
    """Start a command and press Ctrl-C when it imports a module."""
    words = [str(ROOT / f"{command}.py"), module, *ARGUMENTS.get(command, ["none", "none"])]
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
        *((command, "torch.nn") for command in COMMANDS),
        *(("train", module) for module in ("dassl.utils", "numpy", "torchvision.transforms")),
    ],
)
def test_ctrl_c_while_a_command_imports(command: str, module: str) -> None:
    done = press(command, module)
    assert (done.returncode, done.stderr) == (130, "stopped by Ctrl-C\n")


def test_a_command_that_ignores_ctrl_c_goes_on() -> None:
    """A command in the background of a script, where shells let Ctrl-C be ignored."""
    words = [str(ROOT / "train.py"), "dassl.utils", "--trainer", "CoOp", "--load-epoch", "3"]
    done = subprocess.run(
        [sys.executable, "-c", IGNORE + PRESS, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 2


def test_imported_by_other_code_nothing_changes() -> None:
    code = f"{HEED}import predict, train; print(signal.getsignal(signal.SIGINT).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == signal.default_int_handler.__name__
