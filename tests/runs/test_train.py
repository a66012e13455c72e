"""Whole runs: the files in a folder, equal numbers of equal commands, and that training helps."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)
from torch import Tensor

from tests.helpers.own_images import fill
from tests.helpers.runs import ONE_EPOCH, SHORT, Capture, command, finish, results

FILES = {"log.txt", "config.yaml", "history.jsonl", "prompt.safetensors", "results.json"}
FILES |= {"tensorboard", "prompt_learner"}
NEMESIS = ("TRAINER.NEMESIS.BETA", "0.5", "TRAINER.NEMESIS.N", "2")
FEW = (*ONE_EPOCH, "DATASET.SUBSAMPLE_CLASSES", "base")


def prompt(output: Path) -> Tensor:
    """The vectors that a run has learned."""
    return load_file(output / "prompt.safetensors")["ctx"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A short CoOp run with a checkpoint per epoch."""
    output = tmp_path_factory.mktemp("run") / "coop"
    finish(command(output, data_root, *SHORT, "TRAIN.CHECKPOINT_FREQ", "1"))
    return output


def test_a_run_leaves_its_files(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} >= FILES
    run = results(finished)
    expected: dict[str, Any] = {
        "status": "finished",
        "trainer": "CoOp",
        "dataset": "EmojiActivities",
    }
    expected |= {"shots": 1, "seed": 1, "epochs": 3, "backbone": "mini"}
    assert {key: run[key] for key in expected} == expected
    assert run["accuracy"] + run["error_rate"] == pytest.approx(100)
    assert run["num_test"] > 0 and run["train_seconds"] > 0
    assert f"* accuracy: {run['accuracy']:.1f}%" in (finished / "log.txt").read_text()
    epochs = [json.loads(line) for line in (finished / "history.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in epochs if "loss" in entry] == [0, 1, 2]


def test_only_the_prompt_is_saved(finished: Path) -> None:
    saved = load_file(finished / "prompt.safetensors")
    assert {key: tuple(value.shape) for key, value in saved.items()} == {"ctx": (16, 128)}
    with safe_open(finished / "prompt.safetensors", "pt") as file:
        assert json.loads(file.metadata()["trainer"]) == "CoOp"
    checkpoint = torch.load(finished / "prompt_learner" / "model.pth.tar-3", weights_only=True)
    assert list(checkpoint["state_dict"]) == ["ctx"]
    assert torch.equal(checkpoint["state_dict"]["ctx"], saved["ctx"])


def test_the_same_command_gives_the_same_prompt(
    finished: Path, tmp_path: Path, data_root: Path
) -> None:
    finish(command(tmp_path / "again", data_root, *SHORT))
    assert torch.equal(prompt(finished), prompt(tmp_path / "again"))
    assert results(finished)["accuracy"] == results(tmp_path / "again")["accuracy"]


def test_prompts_are_tested_on_other_images_and_classes(
    finished: Path, tmp_path: Path, data_root: Path
) -> None:
    model = ("--eval-only", "--model-dir", str(finished), "--load-epoch", "3")
    finish(command(tmp_path / "last", data_root, *model, *SHORT))
    trained, last = results(finished), results(tmp_path / "last")
    assert last["accuracy"] == trained["accuracy"]
    assert last["model_dir"] == str(finished)
    assert last["source_run"]["config"] == trained["config"]
    assert "source_run" not in trained
    sketch = ("--target-domains", "openmoji-black", *model, *SHORT)
    finish(command(tmp_path / "sketch", data_root, *sketch))
    assert results(tmp_path / "sketch")["target_domains"] == ["openmoji-black"]
    finish(command(tmp_path / "new", data_root, *model, "DATASET.SUBSAMPLE_CLASSES", "new"))
    pets = ("DATASET.FOLDER.PATH", str(fill(tmp_path / "pets")))
    finish(command(tmp_path / "other", data_root, *model, *pets, dataset="folder"))
    other = results(tmp_path / "other")
    assert (other["dataset"], other["shots"]) == ("Folder", -1)
    source = other["source_run"]
    assert (source["dataset"], source["shots"]) == ("EmojiActivities", 1)
    assert all(trained[key] == value for key, value in source.items() if key != "config")


@pytest.mark.parametrize("trainer", ["CoOpNemesis", "CoCoOpNemesis", "PLOTNemesis"])
def test_nemesis_logs_losses_norms_and_positions(
    trainer: str, tmp_path: Path, data_root: Path
) -> None:
    given = (*NEMESIS, *FEW, "TEST.NO_TEST", "True")
    finish(command(tmp_path / "run", data_root, *given, trainer=trainer))
    (line,) = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    epoch = json.loads(line)
    assert {"loss", "ce", "pun", "pan", "omega_E", "norm", "acc"} <= set(epoch)
    assert len(epoch["position_norms"]) == len(epoch["selections"])
    length = prompt(tmp_path / "run").shape[-2]
    assert length == len(epoch["selections"])
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    logged = set(board.Tags()["scalars"])
    assert {f"train/{key}" for key in ("ce", "pun", "pan", "omega_E", "norm", "acc")} <= logged
    for name in ("position_norms", "selections"):
        values = [board.Scalars(f"{name}/{place}")[0].value for place in range(length)]
        assert values == pytest.approx(epoch[name], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "amp"])
@pytest.mark.parametrize("trainer", ["CoOpNemesis", "PLOTNemesis"])
def test_precisions(trainer: str, precision: str, tmp_path: Path, data_root: Path) -> None:
    node = f"TRAINER.{trainer.removesuffix('Nemesis').upper()}.PREC"
    given = (node, precision, *FEW, *NEMESIS[:2])
    finish(command(tmp_path / "run", data_root, *given, trainer=trainer))
    assert results(tmp_path / "run")["accuracy"] > 0


def test_no_train_builds_and_stops(tmp_path: Path, data_root: Path, capsys: Capture) -> None:
    finish(command(tmp_path / "none", data_root, "--no-train", *SHORT))
    assert not (tmp_path / "none" / "results.json").exists()
    assert "Results are in" not in capsys.readouterr().out


@pytest.mark.parametrize("position", ["middle", "front"])
def test_variants_of_coop_train(position: str, tmp_path: Path, data_root: Path) -> None:
    options = ["TRAINER.COOP.CLASS_TOKEN_POSITION", position, "TRAINER.COOP.CSC", "True"]
    words = ["TRAINER.COOP.CTX_INIT", "a photo of a"] if position == "front" else []
    finish(command(tmp_path / position, data_root, *FEW, *options, *words))
    ctx = prompt(tmp_path / position)
    assert ctx.dim() == 3
    assert ctx.shape[1] == (4 if words else 16)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("views", "gain"), [((), 10), (("INPUT.TRAIN_VIEWS", "4", "OPTIM.MAX_EPOCH", "8"), 5)]
)
def test_training_beats_zero_shot(
    views: tuple[str, ...], gain: float, tmp_path: Path, data_root: Path
) -> None:
    finish(command(tmp_path / "zero", data_root, trainer="ZeroshotCLIP"))
    given = ("DATASET.NUM_SHOTS", "4", *views)
    finish(command(tmp_path / "tuned", data_root, *given, config="mini"))
    zero, tuned = results(tmp_path / "zero"), results(tmp_path / "tuned")
    assert tuned["num_test"] == zero["num_test"]
    assert tuned["accuracy"] > zero["accuracy"] + gain
