"""What the files in a run's folder hold, for tests of what may be written over them."""

from pathlib import Path
from typing import Any

import pytest

from dassl.engine.run_record import read_history
from dassl.utils import load_checkpoint

Capture = pytest.CaptureFixture[str]


def content(folder: Path) -> dict[str, bytes]:
    """All files but the logs, the lock and TensorBoard's, whose further files harm nothing."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(("log.txt", ".run", "events"))
    }


def model(folder: Path, epoch: int = 4) -> Any:
    state = load_checkpoint(folder / "toy" / f"model.pth.tar-{epoch}")
    return [
        state["state_dict"],
        state["optimizer"],
        state["scheduler"],
        state["random_states"]["torch"],
    ]


def rates(folder: Path) -> list[float]:
    return [entry["lr"] for entry in read_history(folder) if entry["event"] == "train"]
