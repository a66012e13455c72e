"""Classes declare what is computed from cached features and together with other runs."""

from typing import Any

import pytest

from dassl.engine import TRAINER_REGISTRY
from tests.helpers.feature_runs import FEW, entries, make
from trainers.coop import CoOp
from trainers.core.prompted_clip import PromptedCLIP
from trainers.core.vectorised import can_train_together
from trainers.nemesis_trainer import NemesisMixin
from trainers.zsclip import ZeroshotCLIP

NAMES = ("features", "standard_classify", "standard_step", "trains_on_features")


def declared(trainer_class: Any) -> tuple[Any, ...]:
    return tuple(getattr(trainer_class, name) for name in NAMES)


@pytest.mark.parametrize("name", ["CoOp", "CoOpNemesis", "CoCoOp", "CoCoOpNemesis", "PLOT"])
def test_shipped_methods_declare_everything(name: str) -> None:
    kind = "local" if name == "PLOT" else "pooled"
    assert declared(TRAINER_REGISTRY.get(name)) == (kind, True, True, True)


def test_a_mixin_keeps_the_declarations_of_a_method() -> None:
    assert declared(TRAINER_REGISTRY.get("PLOTNemesis")) == ("local", True, True, True)

    class Images(CoOp):
        features = None

    class ImagesNemesis(NemesisMixin, Images):
        """Its Nemesis variant needs the images, too."""

    assert ImagesNemesis.features is None
    assert not can_train_together(ImagesNemesis)


def test_the_nemesis_variant_of_a_method_with_its_own_step() -> None:
    class Doubled(CoOp):
        def penalty(self, *args: Any) -> Any:
            penalty, summary = super().penalty(*args)
            return 2 * penalty, summary

    class DoubledNemesis(NemesisMixin, Doubled):
        """NemesisMixin's penalty stands first, and yet the method's own one counts."""

    assert not can_train_together(Doubled)
    assert not can_train_together(DoubledNemesis)


def test_a_class_that_only_logs_declares_it(tmp_path: Any, data_root: Any) -> None:
    class Logs(CoOp):
        features = "pooled"
        standard_step = True
        trains_on_features = True

        def forward_backward(self, batch: dict[str, Any]) -> dict[str, Any]:
            return super().forward_backward(batch)

        def model_inference(self, input: Any) -> Any:
            return super().model_inference(input)

    class LogsNemesis(NemesisMixin, Logs):
        """And so its Nemesis variant."""

    class Silent(Logs):
        def forward_backward(self, batch: dict[str, Any]) -> dict[str, Any]:
            return super().forward_backward(batch)

    assert declared(Logs) == declared(LogsNemesis) == ("pooled", True, True, True)
    assert can_train_together(LogsNemesis)
    assert declared(Silent) == ("pooled", True, False, False)

    trainer = make(tmp_path, data_root, *FEW)
    trainer.__class__ = Logs
    trainer.test()
    assert len(entries(tmp_path)) == 1


def test_a_zero_shot_method_with_its_own_classifier() -> None:
    class Own(ZeroshotCLIP):
        def classify(self, image_features: Any) -> Any:
            return super().classify(image_features)

    assert (Own.features, Own.standard_classify) == ("pooled", False)
    assert (ZeroshotCLIP.features, ZeroshotCLIP.standard_classify) == ("pooled", True)


def test_capabilities_of_models() -> None:
    class OwnMatch(PromptedCLIP):
        def match(self, image_features: Any, text_features: Any) -> Any:
            return super().match(image_features, text_features)

    class OwnTower(OwnMatch):
        frozen_features = False
        linear = True

    names = ("frozen_features", "standard_classify", "conditional", "linear")
    found = [[getattr(c, name) for name in names] for c in (PromptedCLIP, OwnMatch, OwnTower)]
    assert found[0] == [True, True, False, True]
    assert found[1] == [True, True, False, False]
    assert found[2] == [False, True, False, True]
