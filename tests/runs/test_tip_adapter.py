"""Tip-Adapter's runs: resumed, tested again, applied, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import nemesis
from dassl.engine.run_record import read_history
from dassl.utils import load_checkpoint
from safeio.errors import UserError
from tests.helpers.killing import Killed, killed_after, same_state
from tests.helpers.runs import Capture, command, finish, refuse, results

FEW = ("DATASET.SUBSAMPLE_CLASSES", "base", "TEST.SPLIT", "val", "TRAINER.TIPADAPTER.VIEWS", "2")
STEPS = ("OPTIM.MAX_EPOCH", "3", "DATALOADER.TRAIN_X.BATCH_SIZE", "16", "DATASET.NUM_SHOTS", "1")


def tip(output: Path, data_root: Path, *extra: str, trainer: str = "TipAdapterF") -> list[str]:
    return command(output, data_root, *FEW, *STEPS, *extra, trainer=trainer)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    folder = tmp_path_factory.mktemp("tip") / "run"
    finish(tip(folder, data_root))
    return folder


def outcome(folder: Path) -> dict[str, Any]:
    """What a run has learned, its history without times, and its results."""
    kept = ("accuracy", "tip_adapter", "epochs")
    (last,) = (folder / "key_cache").glob("model.pth.tar-*")
    state = load_checkpoint(last)
    return {
        "model": state["state_dict"],
        "optimizer": state["optimizer"],
        "history": [{k: v for k, v in e.items() if k != "seconds"} for e in read_history(folder)],
        "results": {key: results(folder)[key] for key in kept},
    }


@pytest.mark.parametrize("place", [3, 6])
def test_a_killed_run_ends_like_an_uninterrupted_one(
    place: int, trained: Path, tmp_path: Path, data_root: Path
) -> None:
    """Killed within an epoch, and after one."""
    with pytest.raises(Killed), killed_after(place):
        finish(tip(tmp_path / "run", data_root))
    finish(tip(tmp_path / "run", data_root, "--resume", str(tmp_path / "run")))
    assert same_state(outcome(trained), outcome(tmp_path / "run"))


def test_the_keys_learn_and_the_grid_is_recorded(
    trained: Path, tmp_path: Path, data_root: Path
) -> None:
    finish(tip(tmp_path / "free", data_root, trainer="TipAdapter"))
    free, learned = (outcome(folder) for folder in (tmp_path / "free", trained))
    assert free["results"]["epochs"] == 1 and free["optimizer"] is None
    assert not torch.equal(free["model"]["keys"], learned["model"]["keys"])
    assert torch.equal(free["model"]["labels"], learned["model"]["labels"])
    norms = free["model"]["keys"].norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    found = learned["results"]["tip_adapter"]
    assert found["grid"] == {"scale": [13.0, 13.0], "steps": [200, 20], "start": 0.1}
    assert found["val_accuracy"] == pytest.approx(learned["results"]["accuracy"])
    file = load_file(trained / "key_cache.safetensors")
    assert torch.equal(file["keys"], learned["model"]["keys"])
    rates = [entry["lr"] for entry in learned["history"] if entry["event"] == "train"]
    assert rates == pytest.approx([0.001, 0.00075, 0.00025])


def test_a_run_is_tested_and_applied(
    trained: Path, tmp_path: Path, data_root: Path, capsys: Capture
) -> None:
    finish(tip(tmp_path / "again", data_root, "--eval-only", "--model-dir", str(trained)))
    again = results(tmp_path / "again")
    assert again["accuracy"] == results(trained)["accuracy"]
    found = results(trained)["tip_adapter"]
    assert again["tip_adapter"]["alpha"] == pytest.approx(found["alpha"], rel=1e-6)
    classifier = nemesis.load(trained)  # without the dataset
    ((name, _), *_) = classifier.predict(Image.new("RGB", (64, 64)))[0]
    assert name in classifier.classnames
    with pytest.raises(UserError, match="adds a cache of keys"):
        classifier.export(tmp_path / "file.safetensors")
    other = ("DATASET.SUBSAMPLE_CLASSES", "new", "--eval-only", "--model-dir", str(trained))
    assert "is of 43 classes" in refuse(tip(tmp_path / "new", data_root, *other), capsys)
    with pytest.raises(UserError, match="classes of its training"):
        nemesis.load(trained, classnames=["cat", "dog"])


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (("TRAINER.TIPADAPTER.ALPHA", "0"), "ALPHA is 0.0, but must be above 0"),
        (("TRAINER.TIPADAPTER.BETA", "-1.0"), "BETA is -1.0, but must be above 0"),
        (("TRAINER.TIPADAPTER.SEARCH_SCALE", "(0.1, 7.0)"), "takes two numbers above 0.1"),
        (("TRAINER.TIPADAPTER.SEARCH_STEP", "(200,)"), "takes two numbers above 0"),
        (("TEST.FINAL_MODEL", "best_val"), "tests the last epoch"),
    ],
)
def test_impossible_settings(
    settings: tuple[str, str], part: str, tmp_path: Path, data_root: Path, capsys: Capture
) -> None:
    assert part in refuse(tip(tmp_path / "run", data_root, *settings), capsys)
    assert not (tmp_path / "run").exists()


def test_a_search_needs_validation_images(tmp_path: Path, capsys: Capture) -> None:
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "data" / "pets" / part / name
            folder.mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (64, 64), (90 * number, 9, 80)).save(folder / f"{number}.png")
    own = command(
        tmp_path / "run", tmp_path / "data", "DATASET.FOLDER.PATH", "pets",
        trainer="TipAdapter", dataset="folder",
    )  # fmt: skip
    assert "has no validation images" in refuse(own, capsys)
    finish([*own, "TRAINER.TIPADAPTER.SEARCH", "False"])
    assert results(tmp_path / "run")["tip_adapter"]["alpha"] == 1.0
