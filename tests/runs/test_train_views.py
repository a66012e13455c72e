"""INPUT.TRAIN_VIEWS: training on K cached augmentations of every image."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dassl.data.data_manager import set_loader_epoch
from dassl.utils import reuse_loaded
from tests.helpers.feature_runs import FEW, entries, make, spoil
from tests.helpers.runs import ONE_EPOCH, Capture, command, finish, refuse, results
from trainers.core.features.view_pool import ViewImages
from trainers.core.features.views import FeatureBank, view_loader

TWO = (*ONE_EPOCH, "INPUT.TRAIN_VIEWS", "2")


def prompt(output: Path) -> Tensor:
    return load_file(output / "prompt.safetensors")["ctx"]


def cached_augmentations(output: Path) -> list[str]:
    log = (output / "log.txt").read_text().splitlines()
    return [line for line in log if "cached augmentations" in line]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, own_root: Path) -> Path:
    """A short run on two views, with its data next to it."""
    folder = tmp_path_factory.mktemp("views")
    shutil.copytree(own_root, folder / "data")
    finish(command(folder / "run", folder / "data", *TWO))
    return folder


def test_results_and_log_state_the_number_of_views(finished: Path, tmp_path: Path) -> None:
    assert results(finished / "run")["train_views"] == 2
    (line,) = cached_augmentations(finished / "run")
    assert "2" in line
    finish(command(tmp_path / "fresh", finished / "data", *ONE_EPOCH))
    assert results(tmp_path / "fresh")["train_views"] == 0
    assert not cached_augmentations(tmp_path / "fresh")


def test_the_cache_does_not_change_the_prompt(finished: Path, tmp_path: Path) -> None:
    """And a run on cached features opens no image."""
    data, again = tmp_path / "data", tmp_path / "again"
    for name, flag in (("on", ()), ("off", ("--no-feature-cache",))):
        finish(command(tmp_path / name, finished / "data", *flag, *TWO))
        assert torch.equal(prompt(tmp_path / name), prompt(finished / "run"))
    finish(command(tmp_path / "other", finished / "data", *TWO, "INPUT.TRAIN_VIEWS", "1"))
    assert not torch.equal(prompt(tmp_path / "other"), prompt(finished / "run"))
    shutil.copytree(finished / "data", data)
    finish(command(tmp_path / "first", data, *TWO))
    spoil(list((data / "emoji_activities").rglob("*.png")))
    finish(command(again, data, *TWO))
    assert torch.equal(prompt(again), prompt(finished / "run"))
    assert results(again)["accuracy"] == results(finished / "run")["accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["CoOpNemesis", "CoCoOpNemesis", "PLOTNemesis"])
def test_every_method_trains_on_views(trainer: str, finished: Path, tmp_path: Path) -> None:
    more = ("DATASET.SUBSAMPLE_CLASSES", "base", "TEST.NO_TEST", "True")
    prompts = []
    for name, flag in (("on", ()), ("off", ("--no-feature-cache",))):
        given = (*flag, *TWO, *more, "TRAINER.NEMESIS.BETA", "0.5")
        finish(command(tmp_path / name, finished / "data", *given, trainer=trainer))
        prompts.append(prompt(tmp_path / name))
    # The features are bit-identical; a step may sum in another order in other memory.
    torch.testing.assert_close(*prompts, atol=1e-8, rtol=1e-5)


def test_a_sample_takes_its_features_from_a_pool(
    own_root: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Bit for bit those that it computes alone; a broken image of the pool costs it nothing."""
    data = shutil.copytree(own_root, tmp_path / "data")

    def features(name: str, others: int) -> Tensor:
        trainer = make(tmp_path / name, data, *FEW)
        images = trainer.train_loader_x.dataset
        own = list(images.data_source)
        images.pool = [*[one for one in images.pool if one not in own][:others], *own]
        views: Any = view_loader(trainer, trainer.train_loader_x, 1).dataset
        (rows,) = views.views
        return torch.as_tensor(rows.read(0, len(rows)))

    def stored(name: str) -> int:
        (path,) = entries(tmp_path / name)
        return len(np.load(path))

    alone = features("alone", 50)
    with reuse_loaded():
        assert torch.equal(features("pool", 50), alone)
        assert torch.equal(features("pool", 50), alone)  # from memory
    assert torch.equal(features("pool", 50), alone)  # from the disk, where the pool is
    assert (stored("alone"), stored("pool")) == (len(alone), len(alone) + 50)
    with reuse_loaded():  # too many images for this sample
        assert torch.equal(features("own", 4 * len(alone)), alone)
    assert stored("own") == len(alone)
    trainer = make(tmp_path / "which", data, *FEW)
    images = trainer.train_loader_x.dataset
    own = {one.impath for one in images.data_source}
    spoil([Path(one.impath) for one in images.pool if one.impath not in own])
    with reuse_loaded():
        assert torch.equal(features("broken", 50), alone)


def digest(path: Path) -> bytes:
    return np.load(path).tobytes()


def test_batches_of_features_follow_those_of_images(tmp_path: Path, data_root: Path) -> None:
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

    # A further view keeps the existing ones; another place gives the same ones.
    kept = entries(tmp_path)
    view_loader(trainer, images, 4)
    assert set(kept) < set(entries(tmp_path)) and len(entries(tmp_path)) == 4
    moved = tmp_path / "moved"
    shutil.copytree(data_root / "emoji_activities", moved / "data" / "emoji_activities")
    again = make(moved, moved / "data", *extra)
    view_loader(again, again.train_loader_x, 3)
    assert not {path.name for path in kept} & {path.name for path in entries(moved)}
    assert {digest(path) for path in kept} == {digest(path) for path in entries(moved)}


def test_with_epochs_each_epoch_has_its_view(tmp_path: Path, data_root: Path) -> None:
    few = ("DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "2")
    trainer = make(tmp_path, data_root, *few, "INPUT.TRAIN_VIEWS", "epochs")
    loader = view_loader(trainer, trainer.train_loader_x, "epochs")
    dataset: Any = loader.dataset
    assert len(dataset.views) == 2
    for epoch in (0, 1):
        set_loader_epoch(loader, epoch)
        for batch in loader:
            rows = dataset.views[epoch].take(batch["index"].tolist())
            assert torch.equal(batch["features"], rows)
    assert not torch.equal(*(views.read(0, 1) for views in dataset.views))
    # What does not fit into the memory is read from the files.
    held, read = (FeatureBank([dataset.views], limit) for limit in (1 << 30, 0))
    places = torch.tensor([[0, 90], [170 - 1, 3]])
    assert torch.equal(held.take(places), read.take(places))


def test_a_view_depends_only_on_its_file_and_number(tmp_path: Path, data_root: Path) -> None:
    source = make(tmp_path, data_root, *TWO).train_loader_x.dataset
    views = [ViewImages(source, view) for view in (0, 1)]
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    first, other, again = views[0][3]["img"], views[1][3]["img"], views[0][3]["img"]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, views[0][4]["img"])
    assert random.getstate() == states[0]
    assert str(np.random.get_state()) == str(states[1])
    assert torch.equal(torch.get_rng_state(), states[2])


def test_impossible_views_are_refused(tmp_path: Path, data_root: Path, capsys: Capture) -> None:
    for options, part in (
        (("INPUT.TRAIN_VIEWS", "-1"), "INPUT.TRAIN_VIEWS is -1"),
        (("INPUT.TRAIN_VIEWS", "2", "DATALOADER.K_TRANSFORMS", "2"), "K_TRANSFORMS"),
    ):
        assert part in refuse(command(tmp_path / "run", data_root, *options), capsys)
    assert not (tmp_path / "run" / "config.yaml").exists()
