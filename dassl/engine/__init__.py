"""The training loop and its trainers."""

from .base import TrainerBase
from .build import TRAINER_REGISTRY, build_and_seed, build_trainer, check_trainer
from .experiment import run_experiment
from .interruption import Interrupted
from .run_files import CONFIG, RESULTS, clear_run, finished_run
from .settings import identity
from .simple_net import SimpleNet
from .simple_trainer import SimpleTrainer
from .trainer import TrainerX
from .trainer_xu import TrainerXU

__all__ = [
    "CONFIG",
    "RESULTS",
    "TRAINER_REGISTRY",
    "Interrupted",
    "SimpleNet",
    "SimpleTrainer",
    "TrainerBase",
    "TrainerX",
    "TrainerXU",
    "build_and_seed",
    "build_trainer",
    "check_trainer",
    "clear_run",
    "finished_run",
    "identity",
    "run_experiment",
]
