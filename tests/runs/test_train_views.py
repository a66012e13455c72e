"""INPUT.TRAIN_VIEWS: training on K kept views of every image."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dassl.data.data_manager import set_loader_epoch
from tests.helpers.feature_runs import entries, make, spoil
from tests.helpers.runs import SHORT, command, finish, refuse, results
from trainers.core.features.views import ViewImages, view_loader

TWO = (*SHORT, "INPUT.TRAIN_VIEWS", "2", "TRAIN.CHECKPOINT_FREQ", "1")


def prompt(output: Path) -> Tensor:
    """What a run has learned."""
    return load_file(output / "prompt.safetensors")["ctx"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, own_root: Path) -> Path:
    """A short run on two views, with its data beside it."""
    folder = tmp_path_factory.mktemp("views")
    shutil.copytree(own_root, folder / "data")
    finish(command(folder / "run", folder / "data", *TWO))
    return folder


def test_a_run_says_that_it_trained_on_views(finished: Path, tmp_path: Path) -> None:
    assert results(finished / "run")["train_views"] == 2
    (line,) = [text for text in log(finished / "run") if "cached augmentations" in text]
    assert "2" in line
    finish(command(tmp_path / "fresh", finished / "data", *SHORT))
    assert results(tmp_path / "fresh")["train_views"] == 0
    assert not any("cached augmentations" in text for text in log(tmp_path / "fresh"))
    finish(command(tmp_path / "zero", finished / "data", trainer="ZeroshotCLIP"))
    assert results(tmp_path / "zero")["train_views"] == 0


def log(output: Path) -> list[str]:
    return (output / "log.txt").read_text().splitlines()


def test_the_same_prompt_with_and_without_the_cache(finished: Path, tmp_path: Path) -> None:
    for name, flag in (("again", ()), ("off", ("--no-feature-cache",))):
        finish(command(tmp_path / name, finished / "data", *flag, *TWO))
        assert torch.equal(prompt(tmp_path / name), prompt(finished / "run"))
    finish(command(tmp_path / "other", finished / "data", *TWO, "INPUT.TRAIN_VIEWS", "1"))
    assert not torch.equal(prompt(tmp_path / "other"), prompt(finished / "run"))


def test_training_and_test_open_no_image_that_is_kept(finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(finished / "data", root)
    finish(command(tmp_path / "first", root, *TWO))
    spoil(list((root / "emoji_activities").rglob("*.png")))
    finish(command(tmp_path / "run", root, *TWO))
    assert torch.equal(prompt(tmp_path / "run"), prompt(finished / "run"))
    assert results(tmp_path / "run")["accuracy"] == results(finished / "run")["accuracy"]


def test_a_resumed_run_ends_with_the_same_prompt(finished: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    shutil.copytree(finished / "run", killed)
    for name in ("results.json", "prompt.safetensors", "prompt_learner/model.pth.tar-3"):
        (killed / name).unlink()
    (killed / "prompt_learner" / "checkpoint").write_text("model.pth.tar-2\n")
    finish(command(killed, finished / "data", "--resume", str(killed), *TWO))
    assert torch.equal(prompt(killed), prompt(finished / "run"))


@pytest.mark.parametrize("trainer", ["CoOpNemesis", "CoCoOpNemesis", "PLOTNemesis"])
def test_every_method_trains_on_views(trainer: str, finished: Path, tmp_path: Path) -> None:
    pan = ("TRAINER.NEMESIS.BETA", "0.5", "OPTIM.MAX_EPOCH", "1", "TEST.NO_TEST", "True")
    halves = ("DATASET.SUBSAMPLE_CLASSES", "base", "DATASET.NUM_SHOTS", "1")
    extra = (*halves, *pan, "INPUT.TRAIN_VIEWS", "2")
    prompts = []
    for name, flag in (("on", ()), ("off", ("--no-feature-cache",))):
        finish(command(tmp_path / name, finished / "data", *flag, *extra, trainer=trainer))
        prompts.append(prompt(tmp_path / name))
    # The features are equal bit for bit; a step may add up in another order where memory lies
    # differently.
    torch.testing.assert_close(*prompts, atol=1e-8, rtol=1e-5)


def test_the_same_items_in_the_same_batches(tmp_path: Path, data_root: Path) -> None:
    extra = ("DATASET.NUM_SHOTS", "2", "INPUT.TRAIN_VIEWS", "3")
    trainer = make(tmp_path, data_root, *extra)
    images = trainer.train_loader_x
    state = torch.get_rng_state()
    features = view_loader(trainer, images, 3)
    assert len(entries(tmp_path)) == 3
    drawn = []
    for epoch in (0, 1):
        passes = []
        for loader in (images, features):
            set_loader_epoch(loader, epoch)
            passes.append(list(loader))
        assert len(passes[0]) == len(images) == len(features)
        for expected, batch in zip(*passes, strict=True):
            assert expected["impath"] == batch["impath"]
            for name in ("label", "domain", "index"):
                assert torch.equal(expected[name], batch[name])
            assert batch["features"].shape == (len(batch["label"]), 256)
        drawn.append(torch.cat([batch["features"] for batch in passes[1]]))
    assert not torch.equal(*(rows.sort(0).values for rows in drawn))
    assert torch.equal(state, torch.get_rng_state())

    # One more view leaves those that are there; another place gives the same ones.
    kept = entries(tmp_path)
    view_loader(trainer, images, 4)
    assert set(kept) < set(entries(tmp_path))
    assert len(entries(tmp_path)) == 4
    moved = tmp_path / "moved"
    shutil.copytree(data_root / "emoji_activities", moved / "data" / "emoji_activities")
    again = make(moved, moved / "data", *extra)
    view_loader(again, again.train_loader_x, 3)
    assert not {path.name for path in kept} & {path.name for path in entries(moved)}
    assert {digest(path) for path in kept} == {digest(path) for path in entries(moved)}


def test_a_view_is_the_file_s_own(tmp_path: Path, data_root: Path) -> None:
    source = make(tmp_path, data_root, *SHORT, "INPUT.TRAIN_VIEWS", "2").train_loader_x.dataset
    views = [ViewImages(source, view) for view in (0, 1)]
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    first, other, again = views[0][3]["img"], views[1][3]["img"], views[0][3]["img"]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, views[0][4]["img"])
    # Nothing else draws other numbers because of it.
    assert random.getstate() == states[0]
    assert str(np.random.get_state()) == str(states[1])
    assert torch.equal(torch.get_rng_state(), states[2])


def digest(path: Path) -> bytes:
    return np.load(path).tobytes()


def test_views_beat_zero_shot(tmp_path: Path, data_root: Path) -> None:
    finish(command(tmp_path / "zero", data_root, trainer="ZeroshotCLIP"))
    extra = ("DATASET.NUM_SHOTS", "16", "INPUT.TRAIN_VIEWS", "4", "OPTIM.MAX_EPOCH", "8")
    finish(command(tmp_path / "tuned", data_root, *extra, config="mini"))
    zero, tuned = results(tmp_path / "zero"), results(tmp_path / "tuned")
    assert tuned["accuracy"] > zero["accuracy"] + 5


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("INPUT.TRAIN_VIEWS", "-1"), "INPUT.TRAIN_VIEWS is -1"),
        (("INPUT.TRAIN_VIEWS", "2", "DATALOADER.K_TRANSFORMS", "2"), "K_TRANSFORMS"),
    ],
)
def test_impossible_views(
    options: tuple[str, ...],
    part: str,
    tmp_path: Path,
    data_root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert part in refuse(command(tmp_path / "run", data_root, *options), capsys)
    assert not (tmp_path / "run" / "config.yaml").exists()
