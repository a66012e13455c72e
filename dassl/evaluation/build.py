"""Finding evaluators by name."""

from typing import Any

from ..config import Config
from ..utils import Registry

EVALUATOR_REGISTRY = Registry("EVALUATOR")


def build_evaluator(cfg: Config, **kwargs: Any) -> Any:
    """Create the evaluator that `cfg.TEST.EVALUATOR` names.

    Raises:
        UserError: there is none of that name.
    """
    evaluator_class = EVALUATOR_REGISTRY.get(cfg.TEST.EVALUATOR)
    if cfg.VERBOSE:
        print(f"Loading evaluator: {cfg.TEST.EVALUATOR}")
    return evaluator_class(cfg, **kwargs)
