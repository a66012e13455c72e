"""Finished and killed runs of the toy task, and the content of their folders."""

from pathlib import Path
from typing import Any

import pytest

import train
from dassl.engine.run_record import read_history
from dassl.utils import load_checkpoint
from tests.helpers.dassl_toy import toy_command
from tests.helpers.killing import Killed, killed_after
from tests.helpers.runs import finish

SAVED = 10  # places at which a run may save: five of each epoch
EVERY_EPOCH = ("TRAIN.CHECKPOINT_FREQ", "1")


def content(folder: Path) -> dict[str, bytes]:
    """All files except logs, the lock and TensorBoard's, which every command may add to."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(("log.txt", ".run", "events"))
    }


def model(folder: Path, epoch: int = 4) -> Any:
    """The parts of a toy run's checkpoint that training changes."""
    state = load_checkpoint(folder / "toy" / f"model.pth.tar-{epoch}")
    return [
        *(state[key] for key in ("state_dict", "optimizer", "scheduler")),
        state["random_states"]["torch"],
    ]


def rates(folder: Path) -> list[float]:
    """The learning rate of every epoch."""
    return [entry["lr"] for entry in read_history(folder) if entry["event"] == "train"]


def make_runs(root: Path, folder: Path) -> Path:
    """Make a finished run and a killed one, both with every file that a run may write."""
    more = ("TEST.COMPUTE_CMAT", "True", "TEST.PER_CLASS_RESULT", "True", *EVERY_EPOCH)
    finish(toy_command(root, folder / "finished", *more))
    with pytest.raises(Killed), killed_after(SAVED):
        train.main(toy_command(root, folder / "killed", *more))
    for name in ("prompt.safetensors", "corruption.json", "classifier.safetensors"):
        (folder / "finished" / name).write_text("of the old run")
    return folder
