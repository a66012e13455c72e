"""A file in trainers/ or datasets/ that cannot be imported is named; others still work."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.runs import ROOT, SHORT, command, results

REGISTER = "from dassl.engine import TRAINER_REGISTRY, TrainerX\n"
HALF = f"{REGISTER}\n@TRAINER_REGISTRY.register()\nclass Broken(TrainerX):\n    pass\n"
TWICE = HALF.replace("Broken", "CoOp")
BROKEN = {
    "cut": ("def (:", "SyntaxError: "),
    "lacking": ("import a_package_that_is_missing", "No module named 'a_package_that_is_missing'"),
    "raising": (f"{HALF}\n1 / 0", "ZeroDivisionError: division by zero"),
    "leaving": ("import sys; sys.exit('bye')", "it ends the process: SystemExit bye"),
}
BROKEN_DATASET = "from nowhere_at_all import Images\n"


def call(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python command in a checkout."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)


def refusal(checkout: Path, *arguments: str) -> str:
    """The error of a command of nemesis or of train.py."""
    verb = [] if arguments[0] == "train.py" else ["-m", "nemesis"]
    done = call(checkout, *verb, *arguments)
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    return line


def train(trainer: str, *settings: str) -> tuple[str, ...]:
    return ("train.py", "--trainer", trainer, "--output-dir", "out", "DATASET.NAME", *settings)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with its own plug-in folders."""
    for shared in ("clip", "dassl", "safeio", "nemesis", "configs"):
        (tmp_path / shared).symlink_to(ROOT / shared)
    shutil.copy(ROOT / "train.py", tmp_path)  # Python imports from a script's real folder
    for copied in ("trainers", "datasets"):
        shutil.copytree(ROOT / copied, tmp_path / copied)
    return tmp_path


def test_a_broken_trainer_is_refused_by_name(checkout: Path) -> None:
    for name, (code, _) in BROKEN.items():
        (checkout / "trainers" / f"{name}.py").write_text(code)
    done = call(checkout, *train("Broken", "DTD"))
    assert done.returncode == 2
    *warnings, error = done.stderr.splitlines()
    assert error.startswith('error: "Broken" is not in the TRAINER registry, and trainers/cut.py ')
    for warning, (name, (_, reason)) in zip(warnings, sorted(BROKEN.items()), strict=True):
        part = f"trainers/{name}.py cannot be imported ("
        assert warning.startswith(f"Warning: {part}") and warning.endswith(" and is skipped")
        assert reason in warning and part in error and reason in error
    assert not (checkout / "out").exists()


@pytest.mark.slow
def test_other_trainers_and_commands_work(checkout: Path, data_root: Path) -> None:
    (checkout / "trainers" / "broken.py").write_text(BROKEN["leaving"][0])
    (checkout / "datasets" / "no_images.py").write_text(BROKEN_DATASET)
    (checkout / "trainers" / "talking.py").write_text("print('imported')")  # not part of the JSON
    run = checkout / "run"
    few = (*SHORT, "OPTIM.MAX_EPOCH", "1", "TEST.SPLIT", "val")
    assert call(checkout, "train.py", *command(run, data_root, *few)).returncode == 0
    assert results(run)["trainer"] == "CoOp"

    image = next(data_root.rglob("*.png"))
    predict = ("predict", str(run), str(image), "--json", "--top-k", "1")
    done = call(checkout, "-m", "nemesis", *predict)
    assert done.returncode == 0
    assert json.loads(done.stdout)["predictions"]
    warnings = [line for line in done.stderr.splitlines() if line.startswith("Warning: ")]
    assert [line.split()[1] for line in warnings] == ["datasets/no_images.py", "trainers/broken.py"]

    done = call(checkout, "-m", "nemesis", "sweep", "configs/sweeps/demo.yaml", "--dry-run")
    assert done.returncode == 0 and "runs: 0 done" in done.stdout


def test_a_broken_dataset_is_refused_by_name(checkout: Path) -> None:
    (checkout / "datasets" / "no_images.py").write_text(BROKEN_DATASET)
    error = refusal(checkout, *train("CoOp", "NoImages"))
    assert error.startswith('error: "NoImages" is not in the DATASET registry, and datasets/no_im')
    assert "No module named 'nowhere_at_all'" in error


@pytest.mark.slow
def test_settings_and_sweeps_of_a_broken_trainer(checkout: Path) -> None:
    """They are unknown because its file was skipped."""
    (checkout / "trainers" / "broken.py").write_text("def (:")
    error = refusal(checkout, *train("Broken", "DTD", "TRAINER.BROKEN.DEPTH", "3"))
    assert '"TRAINER.BROKEN.DEPTH" is unknown' in error
    assert "trainers/broken.py cannot be imported (SyntaxError: " in error
    keys = {"output": "runs", "datasets": ["emoji_food"], "shots": [1], "seeds": [1]}
    content = {**keys, "config": "mini", "methods": {"Broken": None}}
    (checkout / "my.yaml").write_text(json.dumps(content))
    error = refusal(checkout, "sweep", "my.yaml", "--dry-run")
    assert error.startswith('error: my.yaml: methods.Broken: trainer: "Broken" is not')
    assert "trainers/broken.py cannot be imported (SyntaxError: " in error


def test_a_name_that_two_files_register(checkout: Path) -> None:
    """A copy of coop.py whose class was not renamed."""
    (checkout / "trainers" / "my_coop.py").write_text(TWICE)
    error = refusal(checkout, *train("CoOp", "DTD"))
    assert "trainers/my_coop.py cannot be imported" in error
    assert 'An object named "CoOp" is already registered in TRAINER, by trainers.coop' in error


def test_files_that_import_a_broken_one(checkout: Path) -> None:
    """They name the file with the error, and do not bring back a name that two files register."""
    for name, code in {"a_copy": TWICE, "cut": "def (:", "raising": BROKEN["raising"][0]}.items():
        (checkout / "trainers" / f"{name}.py").write_text(code)
        (checkout / "trainers" / f"of_{name}.py").write_text(f"from . import {name}\n")
    (checkout / "trainers" / "z_coop.py").write_text("from . import coop\n")
    error = refusal(checkout, *train("CoOp", "DTD"))
    assert error.startswith('error: "CoOp" is not in the TRAINER registry')
    for file, where in (("of_cut", "cut"), ("of_raising", "raising"), ("z_coop", "coop")):
        assert f"trainers/{file}.py cannot be imported (trainers/{where}.py: " in error


def test_python_shows_the_place_of_the_error(checkout: Path) -> None:
    (checkout / "trainers" / "broken.py").write_text(f"{HALF}\n1 / 0")
    code = (
        "import traceback, trainers; from dassl.engine import TRAINER_REGISTRY as registry\n"
        "assert 'CoOp' in registry and 'Broken' not in registry\n"
        "try: registry.get('Broken')\n"
        "except Exception: traceback.print_exc()\n"
        "print('again', file=sys.stderr)\n"
        "import trainers.broken"
    )
    done = call(checkout, "-c", f"import sys; {code}")
    assert done.returncode == 1
    for printed in done.stderr.split("again\n", 1):
        assert 'trainers/broken.py", line' in printed and "1 / 0" in printed
