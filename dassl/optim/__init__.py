"""Optimisers and learning-rate schedules by name."""

from .lr_scheduler import AVAI_SCHEDS, build_lr_scheduler, iteration_cosine
from .optimizer import AVAI_OPTIMS, build_optimizer

__all__ = [
    "AVAI_OPTIMS",
    "AVAI_SCHEDS",
    "build_lr_scheduler",
    "build_optimizer",
    "iteration_cosine",
]
