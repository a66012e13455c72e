"""Finished and killed runs of the toy task, for tests of what may be written over them.

For modules with `pytest_plugins = ("tests.helpers.run_folder_fixtures",)` and registered toys.
"""

import shutil
from pathlib import Path

import pytest

import train
from tests.helpers.dassl_toy import make_images, toy_command
from tests.helpers.runs import finish
from tests.robustness.test_resume_hooks import Killed, killed_after

SAVED = 10  # places at which a run may save: five of each epoch


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def runs(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run and a killed one, both with everything that a run may write."""
    folder = tmp_path_factory.mktemp("runs")
    more = (
        "TEST.COMPUTE_CMAT",
        "True",
        "TEST.PER_CLASS_RESULT",
        "True",
        "TRAIN.CHECKPOINT_FREQ",
        "1",
    )
    finish(toy_command(root, folder / "finished", *more))
    with pytest.raises(Killed), killed_after(SAVED):
        train.main(toy_command(root, folder / "killed", *more))
    for name in ("prompt.safetensors", "corruption.json", "classifier.safetensors"):
        (folder / "finished" / name).write_text("of the old run")
    return folder


@pytest.fixture
def folder(runs: Path, tmp_path: Path) -> Path:
    """Copies of both."""
    shutil.copytree(runs, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The killed run, uninterrupted."""
    output = tmp_path_factory.mktemp("whole")
    finish(toy_command(root, output, "TRAIN.CHECKPOINT_FREQ", "1"))
    return output
