"""Whole runs of a toy trainer: learning, records, checkpoints, faults."""

import json
import re
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

from dassl.config import load_config
from dassl.engine import (
    SimpleTrainer,
    TrainerBase,
    TrainerX,
    build_trainer,
    clear_run,
    finished_run,
)
from dassl.engine.run_record import read_history
from dassl.utils import load_checkpoint
from safeio.errors import UserError
from tests.helpers.dassl_toy import ToyTrainer, registered, run, toy_config
from tests.helpers.runs import Capture

# Newer versions of Python warn when a process with threads is forked, as loaders do.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def toys() -> Iterator[None]:
    with registered(Diverging, Careless, Reckless, TwoModels):
        yield


@pytest.fixture(scope="module")
def finished(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "finished"
    run(root, output, "OPTIM.MAX_EPOCH", "8", "TRAIN.CHECKPOINT_FREQ", "3")
    return output


def test_a_run_learns_and_leaves_its_files(finished: Path) -> None:
    results = finished_run(finished) or {}
    assert results["accuracy"] > 70
    assert results["accuracy"] + results["error_rate"] == pytest.approx(100)
    expected = {"trainer": "ToyTrainer", "dataset": "Squares", "shots": 4, "seed": 1}
    expected |= {"backbone": "", "num_test": 12, "epochs": 8, "status": "finished"}
    expected |= {"device": "cpu", "subsample_classes": "all", "target_domains": []}
    assert {key: results[key] for key in expected} == expected
    assert results["config"]["OPTIM"]["MAX_EPOCH"] == 8
    assert results["versions"]["torch"]
    assert results["train_seconds"] > 0
    assert load_config(config_file=str(finished / "config.yaml")).OPTIM.MAX_EPOCH == 8
    names = {path.name for path in (finished / "toy").iterdir()}
    assert names == {f"model.pth.tar-{epoch}" for epoch in (3, 6, 8)} | {"checkpoint"}
    assert len(list((finished / "tensorboard").iterdir())) == 1
    state = torch.load(finished / "toy" / "model.pth.tar-6", weights_only=True)
    assert state["epoch"] == 6
    assert {"state_dict", "optimizer", "scheduler", "val_result", "random_states"} <= set(state)


def test_log_has_the_familiar_lines(finished: Path) -> None:
    log = (finished / "log.txt").read_text()
    number = r"\d+\.\d+"
    line = (
        rf"epoch \[1/8\] batch \[2/4\] time {number} \({number}\) data {number} \({number}\) "
        rf"loss {number} \({number}\) acc {number} \({number}\) lr 1\.0000e-03 eta \d:\d\d:\d\d"
    )
    assert re.search(line, log)
    for text in ("Evaluate on the *test* set", "=> result", "* accuracy: ", "Finish training"):
        assert text in log
    assert "it/s" not in log


def test_history_has_an_entry_per_epoch_and_test(finished: Path) -> None:
    for line in (finished / "history.jsonl").read_text().splitlines():
        assert isinstance(json.loads(line), dict)
    history = read_history(finished)
    train = [entry for entry in history if entry["event"] == "train"]
    assert [entry["epoch"] for entry in train] == list(range(8))
    assert train[0]["lr"] == 0.001
    assert train[1]["lr"] == 0.02
    assert set(train[0]) == {"event", "epoch", "seconds", "lr", "loss", "acc"}
    (test,) = [entry for entry in history if entry["event"] == "test"]
    assert (test["split"], test["total"]) == ("test", 12)


def test_best_on_validation(root: Path, tmp_path: Path) -> None:
    trainer = run(root, tmp_path, "TEST.FINAL_MODEL", "best_val")
    best = load_checkpoint(tmp_path / "toy" / "model-best.pth.tar")
    assert best["val_result"] == trainer.best_result
    weight = trainer.model.state_dict()["head.weight"]
    assert torch.equal(weight, best["state_dict"]["head.weight"])
    splits = [e["split"] for e in read_history(tmp_path) if e["event"] == "test"]
    assert splits == ["val"] * 4 + ["test"]
    assert (tmp_path / "toy" / "checkpoint").read_text() == "model.pth.tar-4\n"


def test_evaluation_alone(root: Path, finished: Path, tmp_path: Path) -> None:
    trainer = build_trainer(toy_config(root, tmp_path))
    trainer.load_model(str(finished), epoch=8)
    accuracy = trainer.evaluate()
    results, before = finished_run(tmp_path) or {}, finished_run(finished) or {}
    assert results["accuracy"] == before["accuracy"] == accuracy
    assert results["epochs"] == 0
    trainer.load_model(finished)  # without a number: the newest
    trainer.load_model("")
    with pytest.raises(UserError, match=r"model\.pth\.tar-5"):
        trainer.load_model(finished, epoch=5)
    with pytest.raises(UserError, match="No checkpoint in"):
        trainer.load_model(tmp_path)
    half = build_trainer(toy_config(root, tmp_path, "DATASET.SUBSAMPLE_CLASSES", "base"))
    with pytest.raises(UserError, match="does not fit this run"):
        half.load_model(finished, epoch=8)


def test_no_test(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path, "TEST.NO_TEST", "True", "OPTIM.MAX_EPOCH", "1")
    assert (finished_run(tmp_path) or {})["accuracy"] is None


def test_clearing_keeps_foreign_files(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    (copy / "toy" / "notes.txt").write_text("mine")
    (copy / "empty").mkdir()
    clear_run(copy)
    names = {path.relative_to(copy).as_posix() for path in copy.rglob("*")}
    assert names == {"log.txt", "toy", "toy/notes.txt", "empty"}
    assert finished_run(copy) is None


def test_damaged_records_are_left_out(tmp_path: Path) -> None:
    for content in (None, "", "{", "[]", '{"status": "running"}'):
        if content is not None:
            (tmp_path / "results.json").write_text(content)
        assert finished_run(tmp_path) is None
    (tmp_path / "history.jsonl").write_text('{"event": "train", "epoch": 0}\n{"event": "tr')
    assert [entry["epoch"] for entry in read_history(tmp_path)] == [0]


class Diverging(ToyTrainer):
    """Its loss is not a number in the second epoch's third batch."""

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, Any]:
        image, _ = self.parse_batch_train(batch)
        bad = (self.epoch, self.batch_idx) == (1, 2)
        loss = self.model(image).mean() * (float("nan") if bad else 1.0)
        self.model_backward_and_update(loss)
        return {"loss": loss}


class Careless(Diverging):
    """Does not check its loss; its gradients show it."""

    def detect_anomaly(self, loss: torch.Tensor) -> None:
        if loss.requires_grad:
            return
        super().detect_anomaly(loss)


class Reckless(Careless):
    """Checks nothing and reports nothing; still no such checkpoint is written."""

    def detect_bad_gradients(self, names: Any = None) -> None:
        pass

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, Any]:
        super().forward_backward(batch)
        return {"acc": 0.0}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Diverging", r"The loss is nan in epoch 2, batch 3 on .*\.png, .*\.png and others: "),
        ("Careless", r"The norm of the gradients is nan in epoch 2, batch 3 on .*\.png"),
        ("Reckless", r"toy\.head\.weight contains NaN or Inf after epoch 2"),
    ],
)
def test_a_training_that_diverges(
    root: Path, tmp_path: Path, name: str, message: str, capsys: Capture
) -> None:
    with pytest.raises(FloatingPointError, match=message) as raised:
        run(root, tmp_path, "TRAINER.NAME", name, "TRAIN.CHECKPOINT_FREQ", "1")
    good = tmp_path / "toy" / "model.pth.tar-1"
    assert str(raised.value).endswith(f"the last good checkpoint is {good}")
    assert list((tmp_path / "toy").glob("model*")) == [good]
    assert capsys.readouterr().out.count("In the batch: ") == (0 if name == "Reckless" else 4)
    assert (tmp_path / "toy" / "checkpoint").read_text() == "model.pth.tar-1\n"
    assert finished_run(tmp_path) is None


class TwoModels(ToyTrainer):
    """Has a second model that does not learn, and its own entries for results.json."""

    def build_model(self) -> None:
        super().build_model()
        self.frozen = nn.Linear(1, 1)
        self.register_model("frozen", self.frozen)

    def result_entries(self) -> dict[str, Any]:
        return {"extra": torch.tensor(2.5), "broken": float("nan")}

    def export_artifacts(self, directory: str) -> None:
        (Path(directory) / "artifact").write_text("x")


def test_several_models_resume_from_the_oldest_of_their_checkpoints(
    root: Path, tmp_path: Path
) -> None:
    opts = ("TRAINER.NAME", "TwoModels", "TRAIN.CHECKPOINT_FREQ", "1")
    run(root, tmp_path, *opts)
    results = finished_run(tmp_path) or {}
    assert (results["extra"], results["broken"]) == (2.5, None)
    assert (tmp_path / "artifact").read_text() == "x"
    (tmp_path / "results.json").unlink()
    # A crash between the two files leaves the second an epoch behind.
    (tmp_path / "frozen" / "checkpoint").write_text("model.pth.tar-3\n")
    assert run(root, tmp_path, *opts).start_epoch == 3


def test_tensorboard_has_each_step_once_after_resuming(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path, "TRAIN.CHECKPOINT_FREQ", "1")
    (tmp_path / "results.json").unlink()
    (tmp_path / "toy" / "checkpoint").write_text("model.pth.tar-2\n")
    run(root, tmp_path)
    accumulator = EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    steps = [event.step for event in accumulator.Scalars("train/loss")]
    assert steps == list(range(1, 16, 2))


def test_registering_models() -> None:
    trainer = TrainerBase()
    model = nn.Linear(1, 1)
    trainer.register_model("a", model)
    trainer.register_model("b", nn.Linear(1, 1), torch.optim.SGD(model.parameters(), lr=0.5))
    assert trainer.get_model_names() == ["a", "b"]
    assert trainer.get_model_names("b") == ["b"]
    assert trainer.get_current_lr() == 0.5
    trainer.set_model_mode("eval", "a")
    assert not model.training
    trainer.update_lr()
    with pytest.raises(ValueError, match="already"):
        trainer.register_model("a", model)
    with pytest.raises(ValueError, match='"c"'):
        trainer.get_model_names(["c"])
    with pytest.raises(ValueError, match="optimiser"):
        trainer.get_current_lr("a")
    with pytest.raises(KeyError):
        trainer.set_model_mode("sleep")
    with pytest.raises(AttributeError, match=r"super\(\)"):
        TrainerBase.__new__(TrainerBase).register_model("a", model)


def test_refusals(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='did you mean "ToyTrainer"'):
        build_trainer(toy_config(root, tmp_path, "TRAINER.NAME", "ToyTrain"))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a file with this name exists"):
        build_trainer(toy_config(root, tmp_path / "file"))
    trainer = ToyTrainer(toy_config(root, tmp_path))
    trainer.train_loader_x = None
    with pytest.raises(UserError, match="no training images"):
        trainer.run_epoch()
    trainer.test_loader = None
    with pytest.raises(UserError, match="no test images"):
        trainer.test()
    with pytest.raises(NotImplementedError, match="build_model"):
        TrainerX(toy_config(root, tmp_path))
    assert issubclass(TrainerX, SimpleTrainer)
