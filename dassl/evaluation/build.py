"""Evaluator registry."""

from typing import Any

from ..config import Config
from ..utils import Registry

EVALUATOR_REGISTRY = Registry("EVALUATOR")


def build_evaluator(cfg: Config, **kwargs: Any) -> Any:
    """Create the evaluator named by `cfg.TEST.EVALUATOR`.

    Raises:
        UserError: the name is not registered.
    """
    evaluator_class = EVALUATOR_REGISTRY.get(cfg.TEST.EVALUATOR)
    if cfg.VERBOSE:
        print(f"Loading evaluator: {cfg.TEST.EVALUATOR}")
    return evaluator_class(cfg, **kwargs)
