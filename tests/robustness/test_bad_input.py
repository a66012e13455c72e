"""Mistakes in a command: one sentence, exit code 2, nothing lost."""

import zipfile
from pathlib import Path

import pytest
import torch

from tests.helpers.runs import SHORT, Capture, command, finish, refuse


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        ("MODEL.BACKBONE.NAME /nowhere/weights.pt", "/nowhere/weights.pt"),
        ("MODEL.BACKBONE.NAME RN51", "RN50"),
        ("MODEL.BACKBONE.NAME {not_clip}", "other.pt"),
        ("MODEL.BACKBONE.NAME {not_a_model}", "text.pt"),
        ("DATASET.NAME EmojiFod", "EmojiFood"),
        ("TRAINER.NAME COOp", "CoOp"),
        ("INPUT.SIZE (224,224)", "64 x 64"),
        ("INPUT.PIXEL_MEAN [0.5,0.5,0.5]", "PIXEL_MEAN"),
        ("TRAINER.COOP.N_CTXX 4", "TRAINER.COOP.N_CTX"),
        ("TRAINER.COOP.N_CTX four", "TRAINER.COOP.N_CTX"),
        ("TRAINER.COOP.N_CTX 80", "holds 77"),
        ("TRAINER.COOP.CLASS_TOKEN_POSITION start", "middle"),
        ("TRAINER.COOP.PREC fp16", "fp16 needs a GPU"),
        ("TRAINER.COOP.PREC fp8", "fp32"),
        ("DATASET.NUM_SHOTS", "pairs"),
        ("DEVICE cuda:99", "cuda:99"),
        ("DATASET.TARGET_DOMAINS ['openmoji-blak']", "openmoji-black"),
        ("OPTIM.NAME sgdd", '"sgd"'),
        ("OPTIM.LR_SCHEDULER cosinus", '"cosine"'),
        ("TEST.EVALUATOR Clasification", '"Classification"'),
        ("DATASET.NAME X", "is not in the DATASET registry; available: "),
        ("DATASET.ROOT /nowhere DATASET.NAME OxfordPets", "/nowhere"),
        ("TRAINER.NEMESIS.OMEGA -1.0", "OMEGA"),
        ("TRAINER.NEMESIS.TAU 1.0", "TAU"),
        ("TRAINER.NEMESIS.TAU 0.0", "TAU"),
        ("TRAINER.NEMESIS.N 0", "TRAINER.NEMESIS.N"),
        ("TRAINER.NEMESIS.N 17", "16 vectors"),
        ("TRAINER.NEMESIS.BETA 1.5", "BETA"),
        ("TRAINER.NEMESIS.NORM tow", "two"),
        ("TRAINER.NEMESIS.SCHEDULE logistik", "logistic"),
        ("TRAINER.NEMESIS.OMEGAA 1.0", "TRAINER.NEMESIS.OMEGA"),
        ("--config-file configs/none.yaml", "configs/none.yaml"),
        ("--eval-only --model-dir {tmp}/none --load-epoch 5", "model.pth.tar-5"),
        ("--sead 1", "--sead"),
        ("--output-dir /proc/self/run", "/proc/self"),
        ("--output-dir /proc/self", "/proc/self"),
        ("--output-dir {tmp}/text.pt", "text.pt"),
    ],
)
def test_a_mistake_is_one_sentence(
    overrides: str, part: str, tmp_path: Path, data_root: Path, capsys: Capture
) -> None:
    files = {"not_clip": tmp_path / "other.pt", "not_a_model": tmp_path / "text.pt"}
    torch.save({"layer.weight": torch.zeros(2, 2)}, files["not_clip"])
    with zipfile.ZipFile(files["not_a_model"], "w") as archive:
        archive.writestr("readme.txt", "hello")
    output = tmp_path / "runs" / "run"
    words = [word.format(**files, tmp=tmp_path) for word in overrides.split()]
    trainer = "CoOpNemesis" if "NEMESIS" in overrides else "CoOp"
    given = command(output, data_root, *SHORT, "DEVICE", "cpu", trainer=trainer)
    given = [*given[:-6], *words, *given[-6:]] if words[0].startswith("--") else [*given, *words]
    assert part in refuse(given, capsys)
    assert not output.parent.exists()
    assert zipfile.is_zipfile(files["not_a_model"])


def test_a_prompt_of_another_length_is_refused(
    tmp_path: Path, data_root: Path, capsys: Capture
) -> None:
    finish(command(tmp_path / "four", data_root, *SHORT, "TRAINER.COOP.N_CTX", "4"))
    extra = ("--eval-only", "--model-dir", str(tmp_path / "four"), "--load-epoch", "3")
    message = refuse(command(tmp_path / "run", data_root, *extra), capsys)
    assert "holds 4 context vectors, but TRAINER.COOP.N_CTX is 16" in message


def test_a_mistake_leaves_an_existing_folder_unchanged(
    tmp_path: Path, data_root: Path, capsys: Capture
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.txt").write_text("mine")
    refuse(command(tmp_path / "run", data_root, "MODEL.BACKBONE.NAME", "none.pt"), capsys)
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"log.txt", ".run.lock"}
    assert (tmp_path / "run" / "log.txt").read_text() == "mine"
