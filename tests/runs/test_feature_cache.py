"""Frozen image features are computed once, and the cache does not change any number."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import train
from clip.weights import BUNDLED
from dassl.data import DatasetWrapper
from tests.helpers.feature_runs import FEW, OFF, entries, make, scores, spoil
from tests.helpers.runs import Capture, command, finish, refuse, results
from trainers.core.features import evaluation


@pytest.fixture
def data(tmp_path: Path, own_root: Path) -> Path:
    """A data folder whose images may be changed."""
    return Path(shutil.copytree(own_root, tmp_path / "data"))


@pytest.mark.parametrize(
    ("trainer", "opts"),
    [
        ("CoOp", ()),
        ("ZeroshotCLIP", ()),
        ("ZeroshotCLIP2", ()),
        ("CoOp", ("TRAINER.COOP.PREC", "bf16")),
        ("CoOp", ("TRAINER.COOP.PREC", "amp")),
        pytest.param("CoCoOp", (), marks=pytest.mark.slow),
    ],
)
def test_cached_scores_equal_fresh_ones_bit_for_bit(
    trainer: str, opts: tuple[str, ...], tmp_path: Path, data_root: Path
) -> None:
    expected = scores(make(tmp_path, data_root, OFF, *FEW, *opts, trainer=trainer))
    assert not entries(tmp_path)
    for _ in range(2):
        again = make(tmp_path, data_root, *FEW, *opts, trainer=trainer)
        assert torch.equal(scores(again), expected)
        assert len(entries(tmp_path)) == 1


def test_scores_do_not_depend_on_the_rows_read_at_once(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(tmp_path, data_root, *FEW, "DATALOADER.TEST.BATCH_SIZE", "7")
    expected = scores(trainer)
    for limit in (20_000, 1 << 30):  # some batches, or all, as on an accelerator
        monkeypatch.setitem(evaluation.BYTES_AT_ONCE, "cpu", limit)
        assert torch.equal(scores(trainer), expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "amp"])
def test_plot_always_computes_with_rounded_features(
    precision: str, tmp_path: Path, data_root: Path
) -> None:
    extra = (*FEW, "TRAINER.PLOT.PREC", precision)
    fresh = make(tmp_path, data_root, OFF, *extra, trainer="PLOT")
    exact, features = scores(fresh), fresh.model.image_features
    fresh.model.image_features = lambda images: features(images).half().to(features(images).dtype)
    expected = scores(fresh)
    torch.testing.assert_close(exact, expected, atol=0.05, rtol=0.01)
    for _ in range(2):
        assert torch.equal(scores(make(tmp_path, data_root, *extra, trainer="PLOT")), expected)
    assert np.load(entries(tmp_path)[0]).dtype == np.float16


def test_methods_and_seeds_share_features_and_open_no_image(tmp_path: Path, data: Path) -> None:
    finish(command(tmp_path / "zero", data, *FEW, trainer="ZeroshotCLIP"))
    (entry,) = (data / "features").glob("*.npy")
    spoil(list((data / "emoji_activities").rglob("*.png")))
    finish(command(tmp_path / "again", data, *FEW, trainer="ZeroshotCLIP"))
    assert results(tmp_path / "again")["accuracy"] == results(tmp_path / "zero")["accuracy"]
    few_shot = data / "emoji_activities/split_fewshot"
    for seed in ("2", "3"):  # on the same images
        shutil.copy(few_shot / "shot_1-seed_1.json", few_shot / f"shot_1-seed_{seed}.json")
        extra = ("--seed", seed, *FEW, "OPTIM.MAX_EPOCH", "0")
        finish(command(tmp_path / f"coop{seed}", data, *extra))
    assert list((data / "features").glob("*.npy")) == [entry]
    # Without the cache the spoilt images are opened.
    assert train.main(command(tmp_path / "off", data, OFF, *FEW, trainer="ZeroshotCLIP")) == 2


def test_an_unreadable_image_gives_the_same_error(
    tmp_path: Path, data: Path, capsys: Capture
) -> None:
    image = next(iter(make(tmp_path, data, *FEW).dm.dataset.val)).impath
    Path(image).write_bytes(b"no image")
    messages = [
        refuse(command(tmp_path / "run", data, *flag, *FEW, trainer="ZeroshotCLIP"), capsys)
        for flag in ((), (OFF,))
    ]
    assert image in messages[0]
    assert messages[0] == messages[1]


def test_outdated_and_damaged_entries_are_made_again(
    tmp_path: Path, data: Path, capsys: Capture
) -> None:
    before = scores(make(tmp_path, data, *FEW, trainer="ZeroshotCLIP"))
    (entry,) = entries(tmp_path)
    entry.write_bytes(entry.read_bytes()[:-100])
    assert torch.equal(scores(make(tmp_path, data, *FEW, trainer="ZeroshotCLIP")), before)
    assert "damaged" in capsys.readouterr().out
    items = make(tmp_path, data, *FEW).dm.dataset.val
    shutil.copy(items[1].impath, items[0].impath)
    os.utime(items[0].impath, ns=(1, 1))
    capsys.readouterr()
    after = scores(make(tmp_path, data, *FEW, trainer="ZeroshotCLIP"))
    assert "stale" in capsys.readouterr().out
    assert torch.equal(after[0], after[1])
    assert torch.equal(after[1:], before[1:])
    assert len(entries(tmp_path)) == 1


def test_an_unwritable_cache_costs_one_line(
    tmp_path: Path, data_root: Path, capsys: Capture
) -> None:
    expected = scores(make(tmp_path, data_root, OFF, *FEW))
    (tmp_path / "cache").write_text("a file")
    trainer = make(tmp_path, data_root, *FEW)
    capsys.readouterr()
    for _ in range(2):
        assert torch.equal(scores(trainer), expected)
    assert capsys.readouterr().out.count("cannot be cached") == 1


def test_the_key_depends_on_what_determines_the_features(tmp_path: Path, data_root: Path) -> None:
    weights = load_file(BUNDLED["mini"])
    weights["visual.conv1.weight"] = weights["visual.conv1.weight"] * 1.01
    other = tmp_path / "other.safetensors"
    with safe_open(BUNDLED["mini"], "pt") as file:
        save_file(weights, other, metadata=file.metadata())
    variants: dict[str, tuple[str, ...]] = {
        "default": (),
        "weights": ("--backbone", str(other)),
        "interpolation": ("INPUT.INTERPOLATION", "bilinear"),
        "normalisation": ("INPUT.PIXEL_MEAN", "[0.6001, 0.6, 0.6]"),
        "precision": ("TRAINER.COOP.PREC", "bf16"),
        "autocast": ("TRAINER.COOP.PREC", "amp"),
        "architecture": ("MODEL.CLIP.ACTIVATION", "gelu"),
        "images": ("DATASET.SUBSAMPLE_CLASSES", "base"),
    }

    def key(trainer: Any, *of: Any, **view: int) -> Any:
        dataset = trainer.test_loader.dataset
        return trainer.cached_features.cache.key(dataset, *(of or ("pooled",)), **view)

    trainers = {name: make(tmp_path, data_root, *opts, *FEW) for name, opts in variants.items()}
    plain = trainers["default"]
    keys = [key(trainer) for trainer in trainers.values()]
    keys += [key(plain, "local"), key(plain, view=0)]
    assert None not in keys
    assert len(set(keys)) == len(keys)
    # Neither the method nor training settings change it.
    same = ("INPUT.TRANSFORMS", "['normalize']", "OPTIM.LR", "1.0")
    assert key(make(tmp_path, data_root, *FEW, *same, trainer="ZeroshotCLIP")) == keys[0]
    # A tower that was changed after loading, and a transform without a description.
    with torch.no_grad():
        plain.loaded_clip.model.visual.conv1.weight[0, 0, 0, 0] += 1e-3
    del plain.cached_features.cache
    assert key(plain) not in keys
    source = plain.test_loader.dataset
    source.transform = lambda image: source.to_tensor(image.rotate(90))
    assert key(plain) is None


def test_a_custom_reader_of_images_is_not_cached(tmp_path: Path, data_root: Path) -> None:
    class Mirrored(DatasetWrapper):
        def _read(self, index: int, path: str) -> Any:
            return super()._read(index, path).rotate(180)

    trainer = make(tmp_path, data_root, *FEW)
    trainer.val_loader.dataset.__class__ = Mirrored
    trainer.test()
    assert not entries(tmp_path)
