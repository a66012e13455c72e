"""Frozen image features are computed once, and nothing but time tells whether they were."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import train
from clip.weights import MINI_PATH
from dassl.data import DatasetWrapper
from dassl.data.datasets import Datum
from dassl.engine import TRAINER_REGISTRY, build_trainer
from tests.runs import SHORT, command, finish, refuse, results
from trainers.coop import CoOp
from trainers.prompted_clip import PromptedCLIP
from trainers.zsclip import ZeroshotCLIP

# One validation image a class: small enough for CoCoOp.
OFF = "--no-feature-cache"
FEW = ("DATASET.NUM_SHOTS", "1", "TEST.SPLIT", "val")


def make(output: Path, data_root: Path, *extra: str, trainer: str = "CoOp") -> Any:
    """A trainer as train.py builds it; its cache is output/cache."""
    cache = ("TEST.FEATURE_CACHE", str(output / "cache"))
    arguments = command(output / "run", data_root, *extra, *cache, trainer=trainer)
    cfg = train.make_config(train.build_parser().parse_args(arguments))
    torch.manual_seed(1)
    return build_trainer(cfg)


def scores(trainer: Any) -> Tensor:
    """All scores of a test."""
    collected: list[Tensor] = []
    process = trainer.evaluator.process

    def keep(scores: Tensor, labels: Tensor) -> None:
        collected.append(scores)
        process(scores, labels)

    trainer.evaluator.process = keep
    trainer.test()
    return torch.cat(collected)


def entries(output: Path) -> list[Path]:
    """The files of the cache."""
    return sorted((output / "cache").glob("*.safetensors"))


def spoil(paths: list[Path]) -> None:
    """Overwrite files so that only their content tells: size and time of change stay."""
    for path in paths:
        stat = path.stat()
        path.write_bytes(b"\0" * stat.st_size)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.fixture(scope="module")
def own_root(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A data folder whose images may be spoilt."""
    root = tmp_path_factory.mktemp("own") / "data"
    finish(command(root.parent / "first", data_root, *FEW, trainer="ZeroshotCLIP"))
    shutil.copytree(data_root / "emoji_activities", root / "emoji_activities")
    return root


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
    assert load_file(entries(tmp_path)[0])["features"].dtype == torch.float16


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
    (entry,) = (root / "features").glob("*.safetensors")
    spoil(list((root / "emoji_activities").rglob("*.png")))
    finish(command(tmp_path / "again", root, *FEW, trainer="ZeroshotCLIP"))
    assert results(tmp_path / "again")["accuracy"] == results(tmp_path / "zero")["accuracy"]
    for seed in ("2", "3"):  # every seed, and a method with prompts, on the same images
        extra = ("--seed", seed, "--eval-only", *FEW)
        shutil.copy(
            root / "emoji_activities/split_fewshot/shot_1-seed_1.json",
            root / f"emoji_activities/split_fewshot/shot_1-seed_{seed}.json",
        )
        finish(command(tmp_path / f"coop{seed}", root, *extra))
    assert list((root / "features").glob("*.safetensors")) == [entry]
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
    assert "does not exist" in refuse(command(tmp_path / "gone", root, *FEW), capsys)


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
    assert capsys.readouterr().out.count("cannot be kept") == 1


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
        name: trainer.feature_cache.key(trainer.test_loader.dataset, "pooled")
        for name, trainer in trainers.items()
    }
    assert None not in keys.values()
    assert len(set(keys.values())) == len(variants)
    plain = trainers["as it is"]
    source = plain.test_loader.dataset
    assert plain.feature_cache.key(source, "local") != keys["as it is"]
    assert plain.feature_cache.key(source, "pooled", view=0) != keys["as it is"]
    # Neither the method nor what only training sees changes it.
    same = ("INPUT.TRANSFORMS", "['normalize']", "OPTIM.LR", "1.0")
    zero = make(tmp_path, data_root, *FEW, *same, trainer="ZeroshotCLIP")
    key = zero.feature_cache.key(zero.test_loader.dataset, "pooled")
    assert key == keys["as it is"]
    # A tower that was changed after loading, or a transform that nothing describes.
    with torch.no_grad():
        plain.loaded_clip.model.visual.conv1.weight[0, 0, 0, 0] += 1e-3
    del plain.__dict__["_feature_cache"]
    assert plain.feature_cache.key(source, "pooled") != keys["as it is"]
    source.transform = lambda image: source.to_tensor(image.rotate(90))
    assert plain.feature_cache.key(source, "pooled") is None


class FlippedInference(CoOp):
    """Its own inference on images."""

    def model_inference(self, input: Tensor) -> Tensor:
        assert input.shape[1:] == (3, 64, 64)
        return self.model(input.flip(-1))


class FlippedBatches(CoOp):
    """Its own idea of a test batch."""

    def parse_batch_test(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        images, labels = super().parse_batch_test(batch)
        return images.flip(-1), labels


class FlippedFeatures(PromptedCLIP):
    def image_features(self, images: Tensor) -> Tensor:
        return super().image_features(images.flip(-1))


class FlippedForward(PromptedCLIP):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.flip(-1))


class OwnFeatures(CoOp):
    """Its own features."""

    model_class: type[PromptedCLIP] = FlippedFeatures

    def build_prompted_clip(self, classnames: list[str]) -> PromptedCLIP:
        model = super().build_prompted_clip(classnames)
        model.__class__ = self.model_class
        return model


class OwnForward(OwnFeatures):
    """Its own forward pass."""

    model_class = FlippedForward


class FlippedZeroshot(ZeroshotCLIP):
    """Zero-shot with its own inference."""

    def model_inference(self, input: Tensor) -> Tensor:
        return super().model_inference(input.flip(-1))


class OwnStep(CoOp):
    """Its own training step."""

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        assert "img" in batch
        return super().forward_backward(batch)


FOREIGN = (*(FlippedInference, FlippedBatches, OwnFeatures, OwnForward, FlippedZeroshot, OwnStep),)


@pytest.fixture
def _registered() -> Iterator[None]:
    for trainer in FOREIGN:
        TRAINER_REGISTRY.register(trainer)
    yield
    for trainer in FOREIGN:
        del TRAINER_REGISTRY._objects[trainer.__name__]


def foreign_command(output: Path, data_root: Path, name: str, *extra: str) -> list[str]:
    """A run of one of the trainers above."""
    base = "ZeroshotCLIP" if name == "FlippedZeroshot" else "CoOp"
    arguments = command(output, data_root, *extra, trainer=base)
    arguments[arguments.index("--trainer") + 1] = name
    return arguments


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("foreign", FOREIGN[:-1])
def test_inference_of_its_own_gets_images(
    foreign: type[Any], tmp_path: Path, data_root: Path
) -> None:
    accuracies = []
    for name, flag in (("on", ()), ("off", (OFF,))):
        cache = ("TEST.FEATURE_CACHE", str(tmp_path / "cache"))
        extra = (*flag, *SHORT, *cache, "OPTIM.MAX_EPOCH", "1")
        finish(foreign_command(tmp_path / name, data_root, foreign.__name__, *extra))
        accuracies.append(results(tmp_path / name)["accuracy"])
    assert accuracies[0] == accuracies[1]
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("name", ["OwnStep", "OwnFeatures", "FlippedZeroshot", "ZeroshotCLIP"])
def test_views_are_refused_where_images_are_needed(
    name: str, tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = foreign_command(tmp_path / "run", data_root, name, "INPUT.TRAIN_VIEWS", "2")
    if name == "ZeroshotCLIP":
        views = ("INPUT.TRAIN_VIEWS", "2")
        arguments = command(tmp_path / "run", data_root, *views, trainer=name)
    assert "INPUT.TRAIN_VIEWS is 2" in refuse(arguments, capsys)
    assert not (tmp_path / "run" / "config.yaml").exists()


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
