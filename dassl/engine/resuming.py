"""Save and restore a trainer's state with its resume checkpoint."""

import copy
import time
import weakref
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..utils import MetricMeter, random_states, restore_random_states
from . import interruption
from .own_state import changed_attributes, fingerprints
from .provenance import data_hashes
from .resume_checkpoint import (
    TRAINED_PARTS,
    ResumeCheckpoint,
    check_data,
    check_optimizer,
    check_settings,
    load_newest,
    origins_of,
)
from .settings import settings_in, settings_json

if TYPE_CHECKING:
    from .simple_trainer import SimpleTrainer


class Resuming:
    """Connects a trainer with its resume checkpoint.

    Attributes:
        checkpoint: the file.
        state: the loaded checkpoint, until it is restored.
        origins: epochs that were trained with other settings.
        attributes: fingerprints of the trainer's plain attributes before the first epoch.
        epoch_lr: the learning rate at the start of the current epoch.
    """

    def __init__(self, trainer: "SimpleTrainer") -> None:
        # No reference cycle: a deleted trainer frees its memory and loader processes at once.
        self.trainer: SimpleTrainer = weakref.proxy(trainer)
        self.checkpoint = ResumeCheckpoint(trainer.output_dir)
        self.state: dict[str, Any] | None = None
        self.origins: list[dict[str, Any]] = []
        self.attributes: dict[str, Any] = {}
        self.epoch_lr: float | None = None

    @property
    def start(self) -> tuple[int, int]:
        """The epoch to resume in and the number of its finished batches."""
        return (self.state["epoch"], self.state["batches"]) if self.state else (0, 0)

    @cached_property
    def hashes(self) -> dict[str, str] | None:
        """The hashes of the dataset's images; it reads the sizes of all files."""
        return data_hashes(getattr(self.trainer.dm, "dataset", None))

    @cached_property
    def settings(self) -> str:
        """The settings as JSON; those of a run do not change."""
        return settings_json(self.trainer.cfg)

    def data(self) -> dict[str, str]:
        """Return the hashes of the images used in training."""
        return {part: one for part, one in (self.hashes or {}).items() if part in TRAINED_PARTS}

    def state_dict(self) -> dict[str, Any]:
        """Return settings, data hashes, changed attributes and the length of the history."""
        attributes = changed_attributes(self.trainer, self.attributes)
        return {
            "history_lines": self.trainer.record.lines,
            "settings": self.settings,
            "data": self.data(),
            **({"attributes": attributes} if attributes["values"] else {}),
            **({"origins": self.origins} if self.origins else {}),
        }

    def load(self, directory: str) -> None:
        """Load and check the newest checkpoint in a folder, if any; `restore` applies it.

        Raises:
            UserError: the checkpoint belongs to another model or to a run of other settings.
        """
        self.state, self.origins, trainer = None, [], self.trainer
        if not directory:
            return
        within, complete = trainer.resumes_within_epoch, trainer.checkpoints_complete
        state = load_newest(Path(directory), trainer.get_model_names(), within, complete)
        if state is None:
            return
        trainer.check_resumed(state)
        self._check_models(state)
        self.state, self.origins = state, origins_of(state, trainer.cfg)
        if self.origins:
            self.checkpoint.make_due()  # the next attempt must know them, too
        if Path(directory).resolve() == Path(trainer.output_dir).resolve():
            trainer.record.resume(state["epoch"], state.get("history_lines"))

    def check(self, state: dict[str, Any]) -> None:
        """Refuse with a UserError a checkpoint of other settings or images."""
        cfg = self.trainer.cfg
        check_settings(state, cfg, self.trainer.max_epoch)
        if cfg.SEED >= 0 or cfg.DATASET.NUM_SHOTS < 1:  # few-shot samples vary without a seed
            check_data(state, self.data())

    def _check_models(self, state: dict[str, Any]) -> None:
        """Refuse a checkpoint that does not fit; leave models and random generators unchanged."""
        registry = self.trainer.registry
        before, generators = copy.deepcopy(registry.state_dict()), random_states()
        try:
            registry.load_state_dict(state["models"], state["epoch"], state["path"])
            restore_random_states(state.get("random_states") or generators)
            if settings_in(state) is None:
                for name, resumed in registry.state_dict().items():
                    check_optimizer(state["path"], before[name], resumed)
        finally:
            registry.load_state_dict(before)
            restore_random_states(generators)

    def restore(self) -> None:
        """Restore the loaded state after `before_train`, which runs as in an uninterrupted run."""
        self.attributes = fingerprints(self.trainer)
        if self.state is None:
            return
        self.trainer.load_state_dict(self.state)
        self.checkpoint.saved = self.start
        saved, path = self.checkpoint.describe(self.trainer.max_epoch), self.state["path"]
        print(f'Found checkpoint at "{path}" (will resume training after {saved})')
        if not self.state["batches"]:
            self.state = None

    def restore_epoch(self, losses: MetricMeter) -> int:
        """Restore state and metrics within an epoch, if an earlier attempt stopped there.

        Returns:
            The number of finished batches.
        """
        state, self.state = self.state, None
        if not state or state["epoch"] != self.trainer.epoch:
            return 0
        losses.set_state(state["losses"])
        self.trainer.load_state_dict(state)  # again: `before_epoch` may have changed it
        self.trainer.epoch_start_time -= float(state["seconds"])
        self.epoch_lr = state["lr"]  # the schedule may already be one epoch further
        return int(state["batches"])

    def checkpoint_if_due(
        self, epoch: int, batches: int = 0, losses: MetricMeter | None = None
    ) -> None:
        """Save the state between two batches if it is due, and stop if a signal was received.

        After the last batch of an epoch, `epoch` is the next one and `batches` is 0.

        Raises:
            Interrupted: a signal was received; `save` writes the latest state.
        """
        trainer = self.trainer
        trainer.record.ensure_started()
        hooks = trainer.capabilities["resumes_within_epoch"].hooks
        within = trainer.resumes_within_epoch and not hooks & vars(trainer).keys()
        due, last = self.checkpoint.due(), batches in (0, trainer.num_batches)
        if (batches == 0 or within) and (due or last or interruption.requested()):
            trainer.finite_check.check_all(trainer.epoch, trainer.scaler)
            state = {
                "epoch": epoch,
                "batches": batches,
                "seconds": time.perf_counter() - trainer.epoch_start_time,
                "lr": self.epoch_lr,
                "losses": losses.state() if losses is not None else {},
                "own": {},  # only for earlier versions, which require it
                **trainer.state_dict(),
            }
            # A copy after the last batch, since models may change before the state is written;
            # the states of the generators are copies already.
            generators = state["random_states"]
            copied = {id(generators): generators}
            self.checkpoint.update(copy.deepcopy(state, copied) if last else state)
            if due:
                self.save()
        interruption.check()

    def save(self) -> None:
        """Write the latest state, unless it is already written."""
        if self.trainer._writer is not None:
            self.trainer._writer.flush()
        self.trainer.record.flush()
        self.checkpoint.write()
