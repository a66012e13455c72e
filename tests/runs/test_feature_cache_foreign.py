"""Trainers that change what CoOp and zero-shot CLIP do with images get images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from dassl.engine import TRAINER_REGISTRY
from tests.helpers.feature_runs import OFF
from tests.helpers.runs import SHORT, command, finish, refuse, results
from trainers.coop import CoOp
from trainers.core.prompted_clip import PromptedCLIP
from trainers.zsclip import ZeroshotCLIP


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


class NegatedScores(CoOp):
    """Its own scores of image features."""

    def classify(self, image_features: Tensor) -> Tensor:
        return -super().classify(image_features)


FOREIGN: tuple[type[Any], ...] = (
    *(FlippedInference, FlippedBatches, OwnFeatures, OwnForward, FlippedZeroshot),
    *(OwnStep, NegatedScores),
)
IMAGES = FOREIGN[:5]  # those whose inference needs images


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
@pytest.mark.parametrize("foreign", IMAGES)
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
def test_scores_of_its_own_count_with_and_without_the_cache(
    tmp_path: Path, data_root: Path
) -> None:
    for name, flag in (("on", ()), ("off", (OFF,))):
        cache = ("TEST.FEATURE_CACHE", str(tmp_path / "cache"))
        extra = (*flag, *SHORT, *cache, "OPTIM.MAX_EPOCH", "1")
        finish(foreign_command(tmp_path / name, data_root, "NegatedScores", *extra))
        assert results(tmp_path / name)["accuracy"] < 5
    assert (tmp_path / "cache").exists()


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
