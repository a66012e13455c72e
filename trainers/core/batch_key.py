"""Which runs can be trained as one batch: they agree in a key, whose parts are named settings."""

import json
from dataclasses import dataclass
from typing import Any

from dassl.engine import TRAINER_REGISTRY
from dassl.engine.settings import comparable
from dassl.utils import choose_device

from .prompt_learner import prompt_length
from .prompt_trainer import PromptTrainer

# Settings that may differ within a batch; other settings of their groups must not.
OWN = ("MODEL.INIT_WEIGHTS", "OPTIM.LR", "OPTIM.MOMENTUM", "OPTIM.WEIGHT_DECAY")


@dataclass(frozen=True)
class BatchKey:
    """The settings that the runs of a batch share.

    Attributes:
        text: of runs in one batch equal; empty if the run must be trained alone.
        why: the reason for this, in words.
    """

    text: str = ""
    why: str = ""


def batch_key(cfg: Any) -> BatchKey:
    """Return what a run must share with others to be trained as one batch.

    Raises:
        UserError: the trainer does not exist.
    """
    trainer_class = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if why := _alone(cfg, trainer_class):
        return BatchKey(why=why)
    method = f"TRAINER.{trainer_class.node}."
    groups = (method, "DATASET.", "MODEL.", "OPTIM.", "DATALOADER.TRAIN_X.")
    own = {*OWN, method + "CTX_INIT"}
    settings = comparable(cfg)
    shared = {key: settings[key] for key in settings if key.startswith(groups) and key not in own}
    node = cfg.TRAINER[trainer_class.node]
    shared[method + "N_CTX"] = prompt_length(node.N_CTX, node.CTX_INIT)
    shared |= {"DATASET.ROOT": cfg.DATASET.ROOT, "DEVICE": str(choose_device(cfg))}
    return BatchKey(json.dumps(shared, sort_keys=True))


def can_batch(trainer_class: Any) -> bool:
    """Return whether the step of a trainer class is that of `batched_step`.

    An overridden loss or backward pass might be another one.
    """
    known = isinstance(trainer_class, type) and issubclass(trainer_class, PromptTrainer)
    return known and trainer_class.standard_step and trainer_class.features is not None


def _alone(cfg: Any, trainer_class: Any) -> str:
    """Return why a run cannot be in a batch; "" if it can."""
    if not can_batch(trainer_class):
        return f"the training step of {cfg.TRAINER.NAME} is not that of a batch"
    if not cfg.INPUT.TRAIN_VIEWS:
        return "INPUT.TRAIN_VIEWS is 0, and a batch trains on cached augmentations"
    optim = cfg.OPTIM
    if optim.NAME != "sgd" or optim.SGD_NESTEROV or optim.SGD_DAMPNING or optim.STAGED_LR:
        return "OPTIM.NAME is not sgd without Nesterov's momentum, dampening and staged rates"
    if cfg.TRAINER[trainer_class.node].PREC == "amp" and choose_device(cfg).type == "cuda":
        return f"TRAINER.{trainer_class.node}.PREC is amp, which scales each run's gradients"
    return ""


def difference(first: BatchKey, other: BatchKey) -> str:
    """Return in what two keys differ: a reason, or the names of settings."""
    if not first.text or not other.text:
        return other.why or first.why
    one, two = json.loads(first.text), json.loads(other.text)
    names = sorted(key for key in one.keys() | two.keys() if one.get(key) != two.get(key))
    return f"its {', '.join(names)} {'differs' if len(names) == 1 else 'differ'}"
