"""How a trainer saves what it needs to resume, and how it is put back."""

import copy
import time
import weakref
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
from .settings import settings_in, settings_text

if TYPE_CHECKING:
    from .simple_trainer import SimpleTrainer


class Resuming:
    """Connects a trainer with its resume checkpoint.

    Args:
        trainer: the trainer.

    Attributes:
        checkpoint: the file.
        state: where an earlier attempt was stopped, until that is restored.
        origins: epochs that were trained with other settings.
        attributes: fingerprints of the trainer's own attributes as the training began.
        epoch_lr: the learning rate with which the present epoch began.
    """

    def __init__(self, trainer: "SimpleTrainer") -> None:
        # Without a cycle of references, a trainer's memory and loader processes end with it.
        self.trainer: SimpleTrainer = weakref.proxy(trainer)
        self.checkpoint = ResumeCheckpoint(trainer.output_dir)
        self.state: dict[str, Any] | None = None
        self.origins: list[dict[str, Any]] = []
        self.attributes: dict[str, Any] = {}
        self.epoch_lr: float | None = None
        self._data: dict[str, Any] | None = None

    @property
    def start(self) -> tuple[int, int]:
        """The epoch to resume with, and how many of its batches are done."""
        return (self.state["epoch"], self.state["batches"]) if self.state else (0, 0)

    def data(self) -> dict[str, Any]:
        """Hashes of the images that decide about the training, computed once."""
        if self._data is None:
            found = data_hashes(getattr(self.trainer.dm, "dataset", None)) or {}
            self._data = {part: found[part] for part in TRAINED_PARTS if part in found}
        return self._data

    def state_dict(self) -> dict[str, Any]:
        """The settings, the data, attributes that have changed, and how long the history is."""
        attributes = changed_attributes(self.trainer, self.attributes)
        return {
            "history_lines": self.trainer.record.lines,
            "settings": settings_text(self.trainer.cfg),
            "data": self.data(),
            **({"attributes": attributes} if attributes["values"] else {}),
            **({"origins": self.origins} if self.origins else {}),
        }

    def load(self, directory: str) -> None:
        """Load and check what a run's folder ("" for none) holds; nothing is changed yet.

        Raises:
            UserError: it belongs to another model, or to a run of other settings.
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
            self.checkpoint.make_due()  # or a second attempt would not know of them
        if Path(directory).resolve() == Path(trainer.output_dir).resolve():
            trainer.record.resume(state["epoch"], state.get("history_lines"))

    def check(self, state: dict[str, Any]) -> None:
        """Refuse a checkpoint of other settings or images."""
        cfg = self.trainer.cfg
        check_settings(state, cfg)
        if cfg.SEED >= 0 or cfg.DATASET.NUM_SHOTS < 1:  # else each start draws its own images
            check_data(state, self.data())

    def _check_models(self, state: dict[str, Any]) -> None:
        """Refuse what does not fit, and leave all models and generators as they are."""
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
        """Put everything back after `before_train`, which so does the same as in a whole run."""
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
        """Begin an epoch's batches, or resume them where an earlier attempt was stopped.

        Args:
            losses: gets the metrics of the batches done.

        Returns:
            How many batches are done.
        """
        state, self.state = self.state, None
        if not state or state["epoch"] != self.trainer.epoch:
            return 0
        losses.set_state(state["losses"])
        self.trainer.load_state_dict(state)  # `before_epoch` has been called a second time
        self.trainer.epoch_began -= float(state["seconds"])
        self.epoch_lr = state["lr"]  # perhaps the epoch's last batch has changed it
        return int(state["batches"])

    def checkpoint_if_due(
        self, epoch: int, batches: int = 0, losses: MetricMeter | None = None
    ) -> None:
        """Between two batches: save when it is due, and stop if a signal came.

        Args:
            epoch: the present one, or the next when one has ended.
            batches: how many of its batches are done.
            losses: their metrics.

        Raises:
            Interrupted: a signal came; what is to be saved is known to `save`.
        """
        trainer = self.trainer
        trainer.record.write_beginning()
        hooks = trainer.capabilities["resumes_within_epoch"].hooks
        within = trainer.resumes_within_epoch and not hooks & vars(trainer).keys()
        due, last = self.checkpoint.due(), batches in (0, trainer.num_batches)
        if (batches == 0 or within) and (due or last or interruption.requested()):
            trainer.finite_check.check_all(trainer.epoch, trainer.scaler)
            state = {
                "epoch": epoch,
                "batches": batches,
                "seconds": time.perf_counter() - trainer.epoch_began,
                "lr": self.epoch_lr,
                "losses": losses.state() if losses is not None else {},
                "own": {},  # of an epoch, in earlier versions; now it is in the attributes
                **trainer.state_dict(),
            }
            # After the last batch models may change before it is written.
            self.checkpoint.update(copy.deepcopy(state) if last else state)
            if due:
                self.save()
        interruption.check()

    def save(self) -> None:
        """Write the latest state, unless it is written."""
        if self.trainer._writer is not None:
            self.trainer._writer.flush()
        self.checkpoint.write()
