"""Soft-prompt tuning of CLIP from Python: train, load, predict, evaluate.

    import nemesis

    run = nemesis.train("CoOpNemesis", dataset="emoji_food", config="mini", shots=4, seed=1,
                        output_dir="output/food")
    run.accuracy, run.results["macro_f1"], run.history
    classifier = nemesis.load("output/food")
    classifier.predict(["pizza.jpg"], top_k=3)

Names are imported on first use, so that `import nemesis` does not import PyTorch. The library logs
to the logger "nemesis". Wrong input raises `UserError`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safeio.errors import UserError

    from .api import Run, train
    from .catalogue import datasets, methods
    from .image_list import ImageList
    from .inference.classifier import Classifier, load

__all__ = [
    "Classifier",
    "ImageList",
    "Run",
    "UserError",
    "datasets",
    "load",
    "methods",
    "train",
]

_MODULES = {
    "Classifier": "nemesis.inference.classifier",
    "ImageList": "nemesis.image_list",
    "Run": "nemesis.api",
    "UserError": "safeio.errors",
    "datasets": "nemesis.catalogue",
    "load": "nemesis.inference.classifier",
    "methods": "nemesis.catalogue",
    "train": "nemesis.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
