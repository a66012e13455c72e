"""Whole runs: what a folder holds, that tuning helps, that numbers come again."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from tests.helpers.runs import SHORT, command, finish, results

FILES = {
    "log.txt",
    "config.yaml",
    "history.jsonl",
    "prompt.safetensors",
    "results.json",
    "tensorboard",
    "prompt_learner",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A short CoOp run with a checkpoint per epoch."""
    output = tmp_path_factory.mktemp("run") / "coop"
    finish(command(output, data_root, *SHORT, "TRAIN.CHECKPOINT_FREQ", "1"))
    return output


def test_a_run_leaves_its_files(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} >= FILES
    run = results(finished)
    assert run["status"] == "finished"
    assert (run["trainer"], run["dataset"], run["shots"], run["seed"], run["epochs"]) == (
        *("CoOp", "EmojiActivities", 1, 1),
        3,
    )
    assert run["backbone"] == "mini"
    assert run["accuracy"] + run["error_rate"] == pytest.approx(100)
    assert run["num_test"] > 0
    assert run["train_seconds"] > 0
    log = (finished / "log.txt").read_text()
    assert f"* accuracy: {run['accuracy']:.1f}%" in log
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
    first, again = (
        load_file(path / "prompt.safetensors")["ctx"] for path in (finished, tmp_path / "again")
    )
    assert torch.equal(first, again)
    assert results(finished)["accuracy"] == results(tmp_path / "again")["accuracy"]


def test_a_resumed_run_ends_with_the_same_prompt(
    finished: Path, tmp_path: Path, data_root: Path
) -> None:
    killed = tmp_path / "killed"
    shutil.copytree(finished, killed)
    for name in ("results.json", "prompt.safetensors", "prompt_learner/model.pth.tar-3"):
        (killed / name).unlink()
    (killed / "prompt_learner" / "checkpoint").write_text("model.pth.tar-2\n")

    finish(command(killed, data_root, "--resume", str(killed), *SHORT))
    expected, resumed = (
        load_file(path / "prompt.safetensors")["ctx"] for path in (finished, killed)
    )
    assert torch.equal(expected, resumed)
    assert results(finished)["accuracy"] == results(killed)["accuracy"]
    lines = (killed / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines if "loss" in json.loads(line)] == [0, 1, 2]


def test_eval_only_repeats_the_test(finished: Path, tmp_path: Path, data_root: Path) -> None:
    model = ("--eval-only", "--model-dir", str(finished), "--load-epoch")
    finish(command(tmp_path / "last", data_root, *model, "3", *SHORT))
    last = results(tmp_path / "last")
    assert last["accuracy"] == results(finished)["accuracy"]
    assert last["model_dir"] == str(finished)
    assert last["source_run"]["config"] == results(finished)["config"]
    assert "source_run" not in results(finished)
    sketch = ("--target-domains", "openmoji-black", *model, "3", *SHORT)
    finish(command(tmp_path / "sketch", data_root, *sketch))
    assert results(tmp_path / "sketch")["target_domains"] == ["openmoji-black"]


def test_prompts_load_across_class_sets(finished: Path, tmp_path: Path, data_root: Path) -> None:
    model = ("--eval-only", "--model-dir", str(finished), "--load-epoch", "3")
    finish(command(tmp_path / "new", data_root, *model, "DATASET.SUBSAMPLE_CLASSES", "new"))
    finish(command(tmp_path / "food", data_root, *model, dataset="food"))
    food = results(tmp_path / "food")
    assert (food["dataset"], food["shots"]) == ("EmojiFood", -1)
    source = food["source_run"]
    assert (source["dataset"], source["shots"]) == ("EmojiActivities", 1)
    trained = results(finished)
    assert all(trained[key] == value for key, value in source.items() if key != "config")


@pytest.mark.parametrize("trainer", ["CoOpNemesis", "CoCoOpNemesis", "PLOTNemesis"])
def test_nemesis_logs_what_it_does(trainer: str, tmp_path: Path, data_root: Path) -> None:
    extra = ("OPTIM.MAX_EPOCH", "1", "TRAINER.NEMESIS.BETA", "0.5", "TRAINER.NEMESIS.N", "2")
    halves = ("DATASET.SUBSAMPLE_CLASSES", "base", "DATASET.NUM_SHOTS", "1", "TEST.NO_TEST", "True")
    finish(command(tmp_path / "run", data_root, *extra, *halves, trainer=trainer))
    (line,) = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    epoch = json.loads(line)
    assert {"loss", "ce", "pun", "pan", "omega_E", "norm", "acc"} <= set(epoch)
    assert len(epoch["position_norms"]) == len(epoch["selections"])
    prompt = load_file(tmp_path / "run" / "prompt.safetensors")["ctx"]
    assert prompt.shape[-2] == len(epoch["selections"])
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    logged = set(board.Tags()["scalars"])
    assert {f"train/{key}" for key in ("ce", "pun", "pan", "omega_E", "norm", "acc")} <= logged
    for name in ("position_norms", "selections"):
        values = [board.Scalars(f"{name}/{place}")[0].value for place in range(prompt.shape[-2])]
        assert values == pytest.approx(epoch[name], rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "amp"])
@pytest.mark.parametrize("trainer", ["CoOpNemesis", "PLOTNemesis"])
def test_precisions(trainer: str, precision: str, tmp_path: Path, data_root: Path) -> None:
    node = f"TRAINER.{trainer.removesuffix('Nemesis').upper()}.PREC"
    extra = (node, precision, "OPTIM.MAX_EPOCH", "1", "TRAINER.NEMESIS.BETA", "0.5")
    halves = ("DATASET.SUBSAMPLE_CLASSES", "base", "DATASET.NUM_SHOTS", "1")
    finish(command(tmp_path / "run", data_root, *extra, *halves, trainer=trainer))
    assert results(tmp_path / "run")["accuracy"] > 0


def test_no_train_builds_and_stops(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(command(tmp_path / "none", data_root, "--no-train", *SHORT))
    assert not (tmp_path / "none" / "results.json").exists()
    assert "Results are in" not in capsys.readouterr().out


@pytest.mark.parametrize("position", ["middle", "front"])
def test_variants_of_coop_train(position: str, tmp_path: Path, data_root: Path) -> None:
    options = ["TRAINER.COOP.CLASS_TOKEN_POSITION", position, "TRAINER.COOP.CSC", "True"]
    words = ["TRAINER.COOP.CTX_INIT", "a photo of a"] if position == "front" else []
    finish(command(tmp_path / position, data_root, *SHORT, *options, *words))
    ctx = load_file(tmp_path / position / "prompt.safetensors")["ctx"]
    assert ctx.dim() == 3
    assert ctx.shape[1] == (4 if words else 16)


def test_tuning_beats_zero_shot(tmp_path: Path, data_root: Path) -> None:
    finish(command(tmp_path / "zero", data_root, trainer="ZeroshotCLIP"))
    finish(command(tmp_path / "tuned", data_root, "DATASET.NUM_SHOTS", "16", config="mini"))
    zero, tuned = results(tmp_path / "zero"), results(tmp_path / "tuned")
    assert tuned["num_test"] == zero["num_test"]
    assert tuned["accuracy"] > zero["accuracy"] + 10
