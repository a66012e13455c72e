"""A run that was killed goes on as if it had not been."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)
from torch import nn

from dassl.engine import finished_run
from dassl.engine.run_record import read_history
from dassl.utils import load_checkpoint
from safeio.errors import UserError
from tests.helpers.dassl_toy import ToyTrainer, make_images, registered, run

# Newer versions of Python warn when a process with threads is forked, as loaders do.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def toys() -> Iterator[None]:
    with registered(TwoModels):
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data"))


def same_state(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return set(first) == set(second) and all(same_state(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return all(same_state(a, b) for a, b in zip(first, second, strict=True))
    return first == second


@pytest.mark.parametrize("workers", ["0", "2"])
def test_resuming_is_exact(root: Path, tmp_path: Path, workers: str) -> None:
    """Two epochs, a kill and two more give the bits of four epochs in one go."""
    opts = ["TRAIN.CHECKPOINT_FREQ", "1", "DATALOADER.NUM_WORKERS", workers]
    opts += ["TEST.FINAL_MODEL", "best_val"]
    run(root, tmp_path / "whole", *opts)
    killed = tmp_path / "killed"
    shutil.copytree(tmp_path / "whole", killed)
    for name in ("results.json", "toy/model.pth.tar-3", "toy/model.pth.tar-4"):
        (killed / name).unlink()
    (killed / "toy" / "checkpoint").write_text("model.pth.tar-2\n")
    resumed = run(root, killed, *opts)
    assert resumed.start_epoch == 2
    for name in ("model.pth.tar-3", "model.pth.tar-4"):
        states = [load_checkpoint(tmp_path / f / "toy" / name) for f in ("whole", "killed")]
        assert same_state(states[0], states[1])
    whole, again = read_history(tmp_path / "whole"), read_history(killed)
    for entry in whole + again:
        entry.pop("seconds", None)
    assert whole == again
    results = finished_run(tmp_path / "whole"), finished_run(killed)
    assert results[0] is not None
    assert results[1] is not None
    assert results[0]["accuracy"] == results[1]["accuracy"]


def test_resume_from_another_folder(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path / "first")
    opts = ("RESUME", str(tmp_path / "first"), "OPTIM.MAX_EPOCH", "5")
    trainer = run(root, tmp_path / "on", *opts)
    assert trainer.start_epoch == 4
    with pytest.raises(UserError, match="does not exist"):
        run(root, tmp_path / "no", "RESUME", str(tmp_path / "nowhere"))


class TwoModels(ToyTrainer):
    """Has a second model that does not learn, and extras for the record."""

    def build_model(self) -> None:
        super().build_model()
        self.frozen = nn.Linear(1, 1)
        self.register_model("frozen", self.frozen)

    def result_entries(self) -> dict[str, Any]:
        return {"extra": torch.tensor(2.5), "broken": float("nan")}

    def export_artifacts(self, directory: str) -> None:
        (Path(directory) / "artifact").write_text("x")


def test_several_models(root: Path, tmp_path: Path) -> None:
    opts = ("TRAINER.NAME", "TwoModels", "TRAIN.CHECKPOINT_FREQ", "1")
    run(root, tmp_path, *opts)
    results = finished_run(tmp_path)
    assert results is not None
    assert (results["extra"], results["broken"]) == (2.5, None)
    assert (tmp_path / "artifact").read_text() == "x"
    (tmp_path / "results.json").unlink()
    # A crash between the two files leaves the second an epoch behind.
    (tmp_path / "frozen" / "checkpoint").write_text("model.pth.tar-3\n")
    assert run(root, tmp_path, *opts).start_epoch == 3


def test_tensorboard_goes_on_after_a_resume(root: Path, tmp_path: Path) -> None:
    """Each step appears once, also those that were repeated after the kill."""
    run(root, tmp_path, "TRAIN.CHECKPOINT_FREQ", "1")
    (tmp_path / "results.json").unlink()
    (tmp_path / "toy" / "checkpoint").write_text("model.pth.tar-2\n")
    run(root, tmp_path)
    accumulator = EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    steps = [event.step for event in accumulator.Scalars("train/loss")]
    assert steps == list(range(1, 16, 2))
