"""Classes declare what is computed from cached features and as one batch of runs."""

from typing import Any

import pytest

from dassl.engine import TRAINER_REGISTRY
from tests.helpers.feature_runs import FEW, entries, make
from trainers.coop import CoOp
from trainers.core.batch_key import can_batch
from trainers.core.prompted_clip import PromptedCLIP
from trainers.nemesis_trainer import NemesisMixin
from trainers.zsclip import ZeroshotCLIP

NAMES = ("features", "standard_classify", "standard_step", "trains_on_features")


def declared(trainer_class: Any, names: tuple[str, ...] = NAMES) -> tuple[Any, ...]:
    return tuple(getattr(trainer_class, name) for name in names)


class Images(CoOp):
    features = None


class ImagesNemesis(NemesisMixin, Images):
    pass


class Doubled(CoOp):
    def penalty(self, *args: Any) -> Any:
        penalty, summary = super().penalty(*args)
        return 2 * penalty, summary


class DoubledNemesis(NemesisMixin, Doubled):
    """NemesisMixin's penalty comes first, but the method's own one counts."""


class Logs(CoOp):
    features = "pooled"
    standard_step = True
    trains_on_features = True

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, Any]:
        return super().forward_backward(batch)

    def model_inference(self, input: Any) -> Any:
        return super().model_inference(input)


class LogsNemesis(NemesisMixin, Logs):
    pass


class Silent(Logs):
    def forward_backward(self, batch: dict[str, Any]) -> dict[str, Any]:
        return super().forward_backward(batch)


class OwnClassifier(ZeroshotCLIP):
    def classify(self, image_features: Any) -> Any:
        return super().classify(image_features)


class OwnMatch(PromptedCLIP):
    def match(self, image_features: Any, text_features: Any) -> Any:
        return super().match(image_features, text_features)


class OwnEncoder(OwnMatch):
    frozen_features = False
    linear = True


@pytest.mark.parametrize(
    "name", ["CoOp", "CoOpNemesis", "CoCoOp", "CoCoOpNemesis", "PLOT", "PLOTNemesis"]
)
def test_shipped_methods_declare_everything(name: str) -> None:
    kind = "local" if name.startswith("PLOT") else "pooled"
    batches = not name.startswith("CoCoOp")  # whose CLIP makes prompts for each image
    assert declared(TRAINER_REGISTRY.get(name)) == (kind, True, batches, True)


def test_declarations_of_a_method_and_its_nemesis_variant() -> None:
    assert ImagesNemesis.features is None
    for trainer in (ImagesNemesis, Doubled, DoubledNemesis):
        assert not can_batch(trainer)
    assert declared(Logs) == declared(LogsNemesis) == ("pooled", True, True, True)
    assert can_batch(LogsNemesis)
    assert declared(Silent) == ("pooled", True, False, False)
    assert declared(OwnClassifier, NAMES[:2]) == ("pooled", False)
    assert declared(ZeroshotCLIP, NAMES[:2]) == ("pooled", True)


def test_a_declared_class_uses_the_cache(tmp_path: Any, data_root: Any) -> None:
    trainer = make(tmp_path, data_root, *FEW)
    trainer.__class__ = Logs
    trainer.test()
    assert len(entries(tmp_path)) == 1


def test_capabilities_of_models() -> None:
    names = ("frozen_features", "standard_classify", "conditional", "linear")
    assert declared(PromptedCLIP, names) == (True, True, False, True)
    assert declared(OwnMatch, names) == (True, True, False, False)
    assert declared(OwnEncoder, names) == (False, True, False, True)
