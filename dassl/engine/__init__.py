"""The training loop and its trainers."""

from .build import TRAINER_REGISTRY, build_trainer, start_trainer
from .run_record import CONFIG, RESULTS, clear_run, finished_run
from .trainer import SimpleTrainer, TrainerBase, TrainerX

__all__ = [
    "CONFIG",
    "RESULTS",
    "TRAINER_REGISTRY",
    "SimpleTrainer",
    "TrainerBase",
    "TrainerX",
    "build_trainer",
    "clear_run",
    "finished_run",
    "start_trainer",
]
