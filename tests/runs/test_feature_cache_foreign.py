"""Trainers that override how CoOp and zero-shot CLIP use images get images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from dassl.engine import TRAINER_REGISTRY
from tests.helpers.feature_runs import OFF
from tests.helpers.runs import ONE_EPOCH, Capture, command, finish, refuse, results
from trainers.coop import CoOp
from trainers.core.prompted_clip import PromptedCLIP
from trainers.zsclip import ZeroshotCLIP


class FlippedInference(CoOp):
    def model_inference(self, input: Tensor) -> Tensor:
        assert input.shape[1:] == (3, 64, 64)
        return self.model(input.flip(-1))


class FlippedBatches(CoOp):
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
    model_class: type[PromptedCLIP] = FlippedFeatures

    def build_prompted_clip(self, classnames: list[str]) -> PromptedCLIP:
        model = super().build_prompted_clip(classnames)
        model.__class__ = self.model_class
        return model


class OwnForward(OwnFeatures):
    model_class = FlippedForward


class FlippedZeroshot(ZeroshotCLIP):
    def model_inference(self, input: Tensor) -> Tensor:
        return super().model_inference(input.flip(-1))


class OwnStep(CoOp):
    def forward_backward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        assert "img" in batch
        return super().forward_backward(batch)


class NegatedScores(CoOp):
    """Overrides the scores of image features, which may be cached."""

    def classify(self, image_features: Tensor) -> Tensor:
        return -super().classify(image_features)


FOREIGN: dict[str, type[Any]] = {
    t.__name__: t
    for t in (FlippedInference, FlippedBatches, OwnFeatures, OwnForward, FlippedZeroshot)
}
FOREIGN |= {"OwnStep": OwnStep, "NegatedScores": NegatedScores}


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    for trainer in FOREIGN.values():
        TRAINER_REGISTRY.register(trainer)
    yield
    for name in FOREIGN:
        del TRAINER_REGISTRY._objects[name]


def arguments(output: Path, data_root: Path, name: str, *extra: str) -> list[str]:
    """A run of one of the trainers above."""
    base = "ZeroshotCLIP" if "Zeroshot" in name else "CoOp"
    return command(output, data_root, *extra, trainer=name, configured_as=base)


@pytest.mark.parametrize("name", [name for name in FOREIGN if name != "OwnStep"])
def test_the_cache_does_not_change_the_accuracy(name: str, tmp_path: Path, data_root: Path) -> None:
    accuracies = []
    for output, flag in (("on", ()), ("off", (OFF,))):
        given = (*flag, *ONE_EPOCH, "TEST.FEATURE_CACHE", str(tmp_path / "cache"))
        finish(arguments(tmp_path / output, data_root, name, *given, "TEST.SPLIT", "val"))
        accuracies.append(results(tmp_path / output)["accuracy"])
    assert accuracies[0] == accuracies[1]
    assert (accuracies[0] < 5) == (name == "NegatedScores")
    assert (tmp_path / "cache").exists() == (name == "NegatedScores")


@pytest.mark.parametrize("name", ["OwnStep", "OwnFeatures", "FlippedZeroshot", "ZeroshotCLIP"])
def test_cached_augmentations_are_refused_if_images_are_needed(
    name: str, tmp_path: Path, data_root: Path, capsys: Capture
) -> None:
    given = arguments(tmp_path / "run", data_root, name, "INPUT.TRAIN_VIEWS", "2")
    assert "INPUT.TRAIN_VIEWS is 2" in refuse(given, capsys)
    assert not (tmp_path / "run" / "config.yaml").exists()
