"""Flags and KEY VALUE pairs of train.py: in any order, and contradictions."""

import os
import re
import sys
from pathlib import Path

import pytest

import train
from dassl.config import CfgNode, declare_config, defaults
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.engine.build import learns
from tests.helpers.refusals import refused
from tests.helpers.runs import ROOT, SHORT, command, finish, refuse, results

BASE = ("--trainer", "CoOp", "--dataset-config-file", "configs/datasets/emoji_food.yaml")


def read(*words: str) -> CfgNode:
    """The configuration that a command line gives."""
    arguments = train.build_parser().parse_args([*BASE, *words])
    train.check_flags(arguments)
    return train.make_config(arguments)


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    ("words", "domains", "shots", "seed"),
    [
        (("--source-domains", "noto", "DATASET.NUM_SHOTS", "1"), ("noto",), 1, -1),
        (("--source-domains", "a", "b.c", "DATASET.NUM_SHOTS", "1"), ("a", "b.c"), 1, -1),
        (("--source-domains", "a", "DATASET.NUM_SHOTS", "1", "--seed", "4"), ("a",), 1, 4),
        (("DATASET.NUM_SHOTS", "1", "--source-domains", "a", "SEED", "-5"), ("a",), 1, -5),
        (("--source-domains", "a", "--seed", "4", "DATASET.NUM_SHOTS", "1"), ("a",), 1, 4),
        (("--source-domains", "a", "--seed=4", "DATASET.NUM_SHOTS", "2"), ("a",), 2, 4),
        (("--source-domains", "TEST", "v2.0", "SEED", "3"), ("TEST", "v2.0"), -1, 3),
        (("DATASET.NUM_SHOTS", "1", "--", "SEED", "2"), (), 1, 2),
    ],
)
def test_pairs_and_flags_in_any_order(
    words: tuple[str, ...], domains: tuple[str, ...], shots: int, seed: int
) -> None:
    cfg = read(*words)
    assert domains == cfg.DATASET.SOURCE_DOMAINS
    assert (shots, seed) == (cfg.DATASET.NUM_SHOTS, cfg.SEED)


def test_pairs_end_every_list() -> None:
    cfg = read("--target-domains", "a", "SEED", "1", "--transforms", "normalize", "OPTIM.LR", "1")
    assert cfg.DATASET.TARGET_DOMAINS == ("a",)
    assert cfg.INPUT.TRANSFORMS == ("normalize",)
    assert (cfg.SEED, cfg.OPTIM.LR) == (1, 1.0)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--source-domains", "a", "DATASET.NUM_SHOT", "1"), 'did you mean "DATASET.NUM_SHOTS"'),
        (("--source-domains", "a", "DATSET.NUM_SHOTS", "1"), 'did you mean "DATASET.NUM_SHOTS"'),
        (("--transforms", "a", "dataset.num_shots", "1"), 'did you mean "DATASET.NUM_SHOTS"'),
        (("--target-domains", "a", "TRAINER.CoOpNemesis.A", "1"), "TRAINER.NEMESIS.OMEGA"),
        (("--source-domains", "a", "DATASET.NUM_SHOTS=1"), "DATASET.NUM_SHOTS 1"),
        (("DATASET.NUM_SHOTS", "1", "--sead", "2"), "did you mean --seed?"),
        (("DATASET.NUM_SHOTS", "--seed", "2"), '"DATASET.NUM_SHOTS" is not a flag, and'),
        (("--seed", "2", "DATASET.NUM_SHOTS"), '"DATASET.NUM_SHOTS" is not a flag, and'),
        (("food",), "write settings as pairs KEY VALUE"),
    ],
)
def test_mistakes_in_pairs(words: tuple[str, ...], part: str) -> None:
    with refused(re.escape(part)):
        read(*words)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--model-dir", "{run}"), "add --eval-only"),
        (("--load-epoch", "3"), "add --eval-only and --model-dir"),
        (("--eval-only", "--load-epoch", "3"), "--model-dir, which is missing"),
        (("--eval-only", "--model-dir", "{run}", "--load-epoch", "0"), "counted from 1"),
        (("--eval-only", "--model-dir", "{run}", "--load-epoch", "-1"), "counted from 1"),
        (("--eval-only", "--model-dir", "{run}", "--no-train"), "leave --no-train out"),
        (("--eval-only", "--model-dir", "{run}", "--resume", "{run}"), "leave one of them out"),
        (("--no-train", "--resume", "{run}"), "--no-train trains nothing"),
        (("--no-train", "--overwrite"), "leave --overwrite out"),
        (("--ignore-mismatch",), "add --eval-only and --model-dir, or leave it out"),
        (("--resume", "nowhere"), '"nowhere" of --resume does not exist'),
        (("--resume", "{run}/prompt_learner"), 'whole run, "{run}"'),
        (("--eval-only", "--model-dir", "nowhere"), '"nowhere" of --model-dir does not exist'),
        (("--eval-only", "--model-dir", "{run}/prompt_learner"), 'the whole run, "{run}"'),
        (
            ("--eval-only", "--model-dir", "{run}/prompt_learner/model.pth.tar-3"),
            'not a folder, but --model-dir takes the folder of the whole run, "{run}"',
        ),
        (("--eval-only", "--model-dir", "{run}/prompt.safetensors"), 'the whole run, "{run}"'),
    ],
)
def test_flags_that_contradict_each_other(
    words: tuple[str, ...], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    (run / "prompt_learner").mkdir(parents=True)
    for name in ("prompt_learner/model.pth.tar-3", "prompt.safetensors"):
        (run / name).touch()
    arguments = [word.format(run=run) for word in words]
    output = tmp_path / "none" / "out"
    message = refuse([*BASE, "--output-dir", str(output), *arguments], capsys)
    assert part.format(run=run) in message
    assert not output.parent.exists()


def test_contradictions_are_refused_before_pytorch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys, train; code = train.main(['--trainer', 'CoOp', '--load-epoch', '3']); "
        "sys.exit(code if 'torch' not in sys.modules else 9)"
    )
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 2


@pytest.mark.parametrize("trainer", ["CoOp", "CoCoOpNemesis", "PLOT"])
def test_a_test_needs_a_trained_model(
    trainer: str, tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(tmp_path / "run", data_root, "--eval-only", trainer=trainer)
    assert "pass the folder of its run with --model-dir" in refuse(arguments, capsys)
    assert not (tmp_path / "run").exists()


def test_zero_shot_methods_need_no_training(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(command(tmp_path / "run", data_root, *SHORT, "--eval-only", trainer="ZeroshotCLIP"))
    assert results(tmp_path / "run")["epochs"] == 0
    extra = ("--eval-only", "--model-dir", str(tmp_path / "none"))
    message = refuse(command(tmp_path / "b", data_root, *extra, trainer="ZeroshotCLIP2"), capsys)
    assert "does not exist" in message and not (tmp_path / "b").exists()


def test_which_trainers_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    class TheirZeroshot(TrainerX):  # as in CoOp: a model and its inference, no step
        def model_inference(self, image: object) -> None:  # type: ignore[override]
            del image

    class TheirCoOp(TrainerX):
        def forward_backward(self, batch: object) -> None:
            del batch

    monkeypatch.setattr(TRAINER_REGISTRY, "_objects", dict(TRAINER_REGISTRY._objects))
    for trainer in (TheirZeroshot, TheirCoOp):
        TRAINER_REGISTRY.register(trainer)
    found = {
        name: learns(read("TRAINER.NAME", name)) for name in TRAINER_REGISTRY.registered_names()
    }
    others = [name for name, value in found.items() if not value]
    assert others == ["TheirZeroshot", "ZeroshotCLIP", "ZeroshotCLIP2"]


@pytest.mark.parametrize("flag", ["--output-dir", "--resume", "--model-dir"])
def test_the_home_folder(flag: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    arguments = train.build_parser().parse_args([flag, "~/run"])
    assert getattr(arguments, flag[2:].replace("-", "_")) == str(tmp_path / "run")
    assert str(tmp_path / "run") == read("OUTPUT_DIR", "~/run").OUTPUT_DIR


@pytest.mark.slow
def test_files_in_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data_root: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    data_root.mkdir(exist_ok=True)
    (tmp_path / "data").symlink_to(data_root)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    first = command(Path("~/first"), Path("~/data"), *SHORT)
    second = command(Path("~/second"), Path("~/data"), *SHORT)
    for arguments in (first, second):
        place = arguments.index("--config-file") + 1
        arguments[place] = "~/configs/trainers/CoOp/mini_ctx16.yaml"
    finish(first)
    weights = "~/first/prompt_learner/model.pth.tar-3"
    finish([*second, "MODEL.INIT_WEIGHTS", weights, "OPTIM.MAX_EPOCH", "0"])
    accuracy = results(tmp_path / "first")["accuracy"]
    assert results(tmp_path / "second")["accuracy"] == accuracy
    finish([*command(Path("~/third"), Path("~/data")), "--eval-only", "--model-dir", "~/first"])
    assert results(tmp_path / "third")["accuracy"] == accuracy
    assert not (tmp_path / "~").exists()


def test_missing_flags(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refuse([], capsys)
    assert "--trainer is missing" in message and train.EXAMPLE in message
    message = refuse(["--trainer", "CoOp"], capsys)
    assert "--dataset-config-file is missing" in message
    message = refuse(["--config-file", str(ROOT / "configs/trainers/CoOp/mini.yaml")], capsys)
    assert "--trainer is missing" in message
    assert list(tmp_path.iterdir()) == []
    monkeypatch.chdir(ROOT)
    cfg = train.make_config(train.build_parser().parse_args(train.EXAMPLE.split()[2:]))
    assert (cfg.TRAINER.NAME, cfg.DATASET.NAME) == ("CoOp", "EmojiFood")


def test_a_declared_setting_ends_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "_declared", dict(defaults._declared))
    declare_config("NEWGROUP", {"X": 1})
    cfg = read("--source-domains", "a", "DEVICE", "cpu", "NEWGROUP.X", "2")
    assert (cfg.DATASET.SOURCE_DOMAINS, cfg.DEVICE, cfg.NEWGROUP.X) == (("a",), "cpu", 2)
