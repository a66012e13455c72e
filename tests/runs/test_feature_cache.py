"""Frozen image features are computed once, and nothing but time tells whether they were."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import train
from clip.weights import MINI_PATH
from dassl.data import DatasetWrapper
from dassl.data.datasets import Datum
from tests.helpers.feature_runs import FEW, OFF, entries, make, scores, spoil
from tests.helpers.runs import command, finish, refuse, results


@pytest.mark.parametrize("trainer", ["CoOp", "CoCoOp", "ZeroshotCLIP", "ZeroshotCLIP2"])
def test_cached_scores_equal_fresh_ones_bit_for_bit(
    trainer: str, tmp_path: Path, data_root: Path
) -> None:
    fresh = make(tmp_path, data_root, OFF, *FEW, trainer=trainer)
    expected = scores(fresh)
    assert not entries(tmp_path)
    for _ in range(2):
        assert torch.equal(scores(make(tmp_path, data_root, *FEW, trainer=trainer)), expected)
        assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16", "amp"])
def test_plot_computes_with_rounded_features_from_the_first_time_on(
    precision: str, tmp_path: Path, data_root: Path
) -> None:
    extra = (*FEW, "TRAINER.PLOT.PREC", precision)
    fresh = make(tmp_path, data_root, OFF, *extra, trainer="PLOT")
    exact = scores(fresh)
    model_features = fresh.model.image_features
    fresh.model.image_features = lambda images: _rounded(model_features(images))
    expected = scores(fresh)
    torch.testing.assert_close(exact, expected, atol=0.05, rtol=0.01)
    for _ in range(2):
        assert torch.equal(scores(make(tmp_path, data_root, *extra, trainer="PLOT")), expected)
    assert np.load(entries(tmp_path)[0]).dtype == np.float16


def _rounded(features: Tensor) -> Tensor:
    return features.half().to(features.dtype)


@pytest.mark.parametrize("precision", ["bf16", "amp"])
def test_low_precisions_are_kept_as_they_are(
    precision: str, tmp_path: Path, data_root: Path
) -> None:
    extra = (*FEW, "TRAINER.COOP.PREC", precision)
    expected = scores(make(tmp_path, data_root, OFF, *extra))
    for _ in range(2):
        assert torch.equal(scores(make(tmp_path, data_root, *extra)), expected)


def test_all_methods_share_and_the_second_opens_no_image(tmp_path: Path, own_root: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(own_root, root)
    finish(command(tmp_path / "zero", root, *FEW, trainer="ZeroshotCLIP"))
    (entry,) = (root / "features").glob("*.npy")
    spoil(list((root / "emoji_activities").rglob("*.png")))
    finish(command(tmp_path / "again", root, *FEW, trainer="ZeroshotCLIP"))
    assert results(tmp_path / "again")["accuracy"] == results(tmp_path / "zero")["accuracy"]
    for seed in ("2", "3"):  # every seed, and a method with prompts, on the same images
        extra = ("--seed", seed, *FEW, "OPTIM.MAX_EPOCH", "0")
        shutil.copy(
            root / "emoji_activities/split_fewshot/shot_1-seed_1.json",
            root / f"emoji_activities/split_fewshot/shot_1-seed_{seed}.json",
        )
        finish(command(tmp_path / f"coop{seed}", root, *extra))
    assert list((root / "features").glob("*.npy")) == [entry]
    # Without the cache the spoilt images are opened.
    assert train.main(command(tmp_path / "off", root, OFF, *FEW, trainer="ZeroshotCLIP")) == 2


def test_an_unreadable_image_is_the_same_sentence(
    tmp_path: Path, own_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    shutil.copytree(own_root, root)
    image = next(iter(make(tmp_path, root, *FEW).dm.dataset.val)).impath
    Path(image).write_bytes(b"no image")
    messages = []
    for name, flag in (("on", ()), ("off", (OFF,))):
        arguments = command(tmp_path / name, root, *flag, *FEW, trainer="ZeroshotCLIP")
        messages.append(refuse(arguments, capsys))
    assert image in messages[0]
    assert messages[0] == messages[1]
    Path(image).unlink()
    assert "No such file" in refuse(command(tmp_path / "gone", root, *FEW), capsys)


def test_a_changed_file_makes_the_entry_stale(
    tmp_path: Path, own_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    shutil.copytree(own_root, root)
    before = scores(make(tmp_path, root, *FEW, trainer="ZeroshotCLIP"))
    items = make(tmp_path, root, *FEW).dm.dataset.val
    shutil.copy(items[1].impath, items[0].impath)
    os.utime(items[0].impath, ns=(1, 1))
    capsys.readouterr()
    after = scores(make(tmp_path, root, *FEW, trainer="ZeroshotCLIP"))
    assert "stale" in capsys.readouterr().out
    assert torch.equal(after[0], after[1])
    assert torch.equal(after[1:], before[1:])
    assert len(entries(tmp_path)) == 1


def test_a_damaged_entry_is_made_again(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = scores(make(tmp_path, data_root, *FEW))
    (entry,) = entries(tmp_path)
    entry.write_bytes(entry.read_bytes()[:-100])
    assert torch.equal(scores(make(tmp_path, data_root, *FEW)), expected)
    assert "damaged" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_costs_one_line(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = scores(make(tmp_path, data_root, OFF, *FEW))
    (tmp_path / "cache").write_text("a file")
    trainer = make(tmp_path, data_root, *FEW)
    capsys.readouterr()
    for _ in range(2):
        assert torch.equal(scores(trainer), expected)
    assert capsys.readouterr().out.count("cannot be cached") == 1


def test_the_key_tells_apart_what_gives_other_features(tmp_path: Path, data_root: Path) -> None:
    weights = load_file(MINI_PATH)
    weights["visual.conv1.weight"] = weights["visual.conv1.weight"] * 1.01
    other = tmp_path / "other.safetensors"
    with safe_open(MINI_PATH, "pt") as file:
        save_file(weights, other, metadata=file.metadata())
    variants: dict[str, tuple[str, ...]] = {
        "as it is": (),
        "weights": ("--backbone", str(other)),
        "interpolation": ("INPUT.INTERPOLATION", "bilinear"),
        "normalisation": ("INPUT.PIXEL_MEAN", "[0.6001, 0.6, 0.6]"),
        "precision": ("TRAINER.COOP.PREC", "bf16"),
        "autocast": ("TRAINER.COOP.PREC", "amp"),
        "architecture": ("MODEL.CLIP.ACTIVATION", "gelu"),
        "images": ("DATASET.SUBSAMPLE_CLASSES", "base"),
    }
    trainers = {name: make(tmp_path, data_root, *opts, *FEW) for name, opts in variants.items()}
    keys = {
        name: trainer.cached_features.cache.key(trainer.test_loader.dataset, "pooled")
        for name, trainer in trainers.items()
    }
    assert None not in keys.values()
    assert len(set(keys.values())) == len(variants)
    plain = trainers["as it is"]
    source = plain.test_loader.dataset
    assert plain.cached_features.cache.key(source, "local") != keys["as it is"]
    assert plain.cached_features.cache.key(source, "pooled", view=0) != keys["as it is"]
    # Neither the method nor what only training sees changes it.
    same = ("INPUT.TRANSFORMS", "['normalize']", "OPTIM.LR", "1.0")
    zero = make(tmp_path, data_root, *FEW, *same, trainer="ZeroshotCLIP")
    key = zero.cached_features.cache.key(zero.test_loader.dataset, "pooled")
    assert key == keys["as it is"]
    # A tower that was changed after loading, or a transform that nothing describes.
    with torch.no_grad():
        plain.loaded_clip.model.visual.conv1.weight[0, 0, 0, 0] += 1e-3
    del plain.cached_features.cache
    assert plain.cached_features.cache.key(source, "pooled") != keys["as it is"]
    source.transform = lambda image: source.to_tensor(image.rotate(90))
    assert plain.cached_features.cache.key(source, "pooled") is None


def test_a_custom_reader_of_images_is_not_cached(tmp_path: Path, data_root: Path) -> None:
    class Mirrored(DatasetWrapper):
        def _read(self, index: int, path: str) -> Any:
            return super()._read(index, path).rotate(180)

    trainer = make(tmp_path, data_root, *FEW)
    dataset = trainer.val_loader.dataset
    assert all(isinstance(item, Datum) for item in dataset.data_source)
    dataset.__class__ = Mirrored
    trainer.test()
    assert not entries(tmp_path)
