"""Visual prompts with a linear head: on CLIP and on timm, with PUN, and by hand."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

import datasets  # noqa: F401  (registers)
import train
from dassl.config import load_config
from dassl.engine import build_trainer
from tests.helpers.killing import Killed, assert_same, killed_after
from tests.helpers.runs import ROOT, Capture, command, finish, refuse, results
from tests.helpers.shell import script
from tests.helpers.tiny_vit import LAYERS, write_tiny_vit
from trainers.nemesis import omega_schedule

SMALL = (
    *("DATASET.NUM_TRAIN", "40", "OPTIM.MAX_EPOCH", "2", "OPTIM.WARMUP_EPOCH", "-1"),
    *("TEST.SPLIT", "val", "DATALOADER.TRAIN_X.BATCH_SIZE", "8"),
)
CLASSES = 85
PUN = ("TRAINER.NEMESIS.OMEGA", "10.0")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings of a run on a tiny CLIP with a vision transformer."""
    return write_tiny_vit(tmp_path_factory.mktemp("weights"))


def run_of(output: Path, data_root: Path, *words: str, trainer: str = "VPTHead") -> list[str]:
    return command(
        output,
        data_root,
        *SMALL,
        *words,
        trainer=trainer,
        configured_as="VPTHead",
        config="mini_vit",
    )


def trainer_of(data_root: Path, *words: str, trainer: str = "VPTHead") -> Any:
    fixed = ("TRAINER.NAME", trainer, "DATASET.ROOT", str(data_root), "SEED", "1", *SMALL, *words)
    return build_trainer(
        load_config(
            str(ROOT / "configs/datasets/emoji_activities.yaml"),
            str(ROOT / "configs/trainers/VPTHead/mini_vit.yaml"),
            opts=list(fixed),
        )
    )


@pytest.mark.parametrize("trainer", ["VPTHead", "VPTHeadNemesis"])
def test_a_run_counts_its_parameters_and_repeats(
    trainer: str, tiny: tuple[str, ...], tmp_path: Path, data_root: Path
) -> None:
    words = (*tiny, *PUN, "TRAINER.VPTHEAD.DROPOUT", "0.1")
    for name in ("first", "second"):
        finish(run_of(tmp_path / name, data_root, *words, trainer=trainer))
    assert_same(tmp_path / "first", tmp_path / "second")
    run = results(tmp_path / "first")
    assert run["parameters"] == LAYERS * 4 * 64 + CLASSES * (16 + 1)
    assert (run["n_ctx"], run["backbone"]) == (4, tiny[1])
    saved = load_file(tmp_path / "first" / "prompt.safetensors")
    assert saved["ctx"].shape == (LAYERS, 4, 64) and saved["head.weight"].shape == (CLASSES, 16)
    finish(run_of(tmp_path / "again", data_root, *words, "--eval-only", "--model-dir",
                  str(tmp_path / "first"), trainer=trainer))  # fmt: skip
    assert results(tmp_path / "again")["accuracy"] == run["accuracy"]


def test_a_killed_run_ends_like_an_uninterrupted_one(
    tiny: tuple[str, ...], tmp_path: Path, data_root: Path
) -> None:
    words = (*tiny, *PUN, "TRAINER.VPTHEAD.DROPOUT", "0.1")
    whole, killed = (
        run_of(tmp_path / name, data_root, *words, trainer="VPTHeadNemesis")
        for name in ("whole", "killed")
    )
    finish(whole)
    with killed_after(2), pytest.raises(Killed):
        train.main(killed)
    assert (tmp_path / "killed" / "resume.pth.tar").is_file()
    finish([*killed, "--resume", str(tmp_path / "killed")])
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_shallow_prompts_start_as_xavier_draws_a_patch(
    tiny: tuple[str, ...], data_root: Path
) -> None:
    words = (*tiny, "TRAINER.VPTHEAD.DEEP", "False", "TRAINER.VPTHEAD.N_CTX", "50")
    ctx = trainer_of(data_root, *words).model.ctx.detach()
    bound = math.sqrt(6 / (3 * 16 * 16 + 64))
    assert ctx.shape == (1, 50, 64)
    assert float(ctx.abs().max()) <= bound
    assert float(ctx.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize("epoch", [0, 1])
def test_the_loss_is_cross_entropy_and_pun(
    epoch: int, tiny: tuple[str, ...], data_root: Path
) -> None:
    """Against the definition; PUN sums the norms over the layers."""
    trainer = trainer_of(data_root, *tiny, *PUN, trainer="VPTHeadNemesis")
    trainer.epoch, trainer.batch_idx, trainer.num_batches = epoch, 0, 9
    batch = next(iter(trainer.train_loader_x))
    ctx = trainer.model.ctx.detach().clone().requires_grad_()
    features = trainer.tower.encode(batch["img"], ctx)
    cross_entropy = functional.cross_entropy(trainer.model.head(features), batch["label"])
    pun = 10 * ctx.norm(dim=-1).sum(0).mean()
    loss = cross_entropy + omega_schedule(epoch, 2) * pun
    loss.backward()
    logged = trainer.forward_backward(batch)
    torch.testing.assert_close(logged["loss"], loss.detach())
    torch.testing.assert_close(logged["pun"], pun.detach())
    torch.testing.assert_close(trainer.model.ctx.grad, ctx.grad)


def test_on_timm(tmp_path: Path, data_root: Path) -> None:
    own = ("MODEL.BACKBONE.NAME", "timm:test_vit", "MODEL.BACKBONE.PRETRAINED", "False")
    half = ("[0.5, 0.5, 0.5]",) * 2
    size = ("INPUT.SIZE", "(160, 160)", "INPUT.PIXEL_MEAN", half[0], "INPUT.PIXEL_STD", half[1])
    finish(run_of(tmp_path, data_root, *own, *size, *PUN, trainer="VPTHeadNemesis"))
    run = results(tmp_path)
    assert run["backbone"] == "timm:test_vit" and run["status"] == "finished"
    assert run["parameters"] == 6 * 4 * 64 + CLASSES * 65


REFUSED: list[tuple[tuple[str, ...], str, str]] = [
    (("TRAINER.VPTHEAD.N_CTX", "0"), "VPTHead", "N_CTX is 0, but must be at least 1"),
    (("TRAINER.VPTHEAD.DROPOUT", "1.0"), "VPTHead", "DROPOUT is 1.0, but must be from 0 to below"),
    (("INPUT.TRAIN_VIEWS", "2"), "VPTHead", "TRAIN_VIEWS is 2, but VPTHead does not train"),
    (("TRAINER.NEMESIS.BETA", "0.5"), "VPTHeadNemesis", "BETA is 0.5, .* have PUN on all"),
    (("TRAINER.NEMESIS.LAYERS", "scale_bearing"), "VPTHeadNemesis", "LAYERS scale_bearing, but"),
    (("MODEL.BACKBONE.NAME", "mini"), "VPTHead", "ResNet, but prompts need a vision transformer"),
    (("MODEL.BACKBONE.NAME", "timm:resnet18"), "VPTHead", "is a ResNet, not a plain vision trans"),
    (("DATASET.NUM_TRAIN", "100000"), "VPTHead", "NUM_TRAIN is 100,000, but the dataset has only"),
]


@pytest.mark.parametrize(("words", "trainer", "message"), REFUSED)
def test_a_mistake_is_one_sentence(
    words: tuple[str, ...],
    trainer: str,
    message: str,
    tmp_path: Path,
    data_root: Path,
    capsys: Capture,
) -> None:
    given = run_of(tmp_path / "run", data_root, *words, trainer=trainer)
    assert re.search(message, refuse(given, capsys))
    assert not (tmp_path / "run" / "results.json").exists()


@pytest.mark.slow
def test_the_script_on_the_bundled_images(
    tiny: tuple[str, ...], tmp_path: Path, data_root: Path
) -> None:
    """On the tiny CLIP, with the paper's table next to this repository's."""
    short = ("DATASET.NUM_TRAIN", "20", "OPTIM.MAX_EPOCH", "1", "TEST.SPLIT", "val", *tiny)
    own = {"DATASETS": "emoji_activities", "SEEDS": "1", "WORKERS": "0", "DATA": str(data_root)}
    done = script("table_a10", tmp_path / "runs", *short, PROFILE="mini", **own)
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "runs/tables/table_a10/report.md").read_text()
    assert "4 runs, all done" in report and "VPTHead+PUN (omega 0.1)" in report
    assert "The paper's Table A10" in report and "| DMLab " in report
