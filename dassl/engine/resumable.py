"""From which point a killed run goes on, and how it gets there.

Besides Dassl's numbered checkpoints a run keeps one file, resume.pth.tar, that is written over
again and again while it trains and is gone when it has ended. It holds everything at one point
between two batches, so that what follows is the same, bit for bit, as if nothing had happened.
"""

import copy
import json
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from ..data.samplers import skip_batches
from ..utils import MetricMeter, random_states, restore_random_states, save_checkpoint
from . import interruption
from .base import TrainerBase
from .capabilities import Capability, lower_capabilities
from .own_state import changed_attributes, fingerprints, restore_attributes
from .provenance import data_hashes
from .resume_point import (
    TRAINED_PARTS,
    _readable,
    check_data,
    check_optimizer,
    check_settings,
    load_point,
    origins_of,
)
from .run_files import RESUME
from .run_record import RunRecord
from .settings import recorded_settings, settings_in, settings_text

# At most so much is done a second time after a kill. Large models are saved less often: saving
# takes no more than this share of the time.
SAVE_SECONDS = 15.0
SAVE_SHARE = 0.02
# Hooks in which a class may gather something from batch to batch that the engine does not know of.
STEP_HOOKS = frozenset(
    {
        *("before_epoch", "run_epoch", "forward_backward", "parse_batch_train", "loss", "penalty"),
        *("features_and_labels", "model_zero_grad", "model_backward", "model_update"),
        *("model_backward_and_update", "update_lr"),
    }
)


class ResumableTrainer(TrainerBase):
    """Saves points to go on from, and goes on from them.

    Attributes:
        resumes_within_epoch: whether a run is saved between any two batches, or only between
            epochs. A class whose body defines one of `STEP_HOOKS` has it False, and so have its
            subclasses, unless the body defines `epoch_state`, too, or declares the attribute True:
            so its author says that nothing else is gathered from batch to batch.
        capabilities: class attributes that a class body lowers; see `dassl.engine.capabilities`.
        record: counts the lines of the history.
        output_dir: the run's folder.
        best_result: see `ModelKeeper`.
    """

    resumes_within_epoch = True
    capabilities: ClassVar[dict[str, Capability]] = {
        "resumes_within_epoch": Capability(STEP_HOOKS, unless="epoch_state")
    }
    cfg: Any
    record: RunRecord
    output_dir: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        lower_capabilities(cls, cls.capabilities)

    def __init__(self) -> None:
        super().__init__()
        self._point: dict[str, Any] | None = None  # the latest that is known, saved or not
        self._resumed: dict[str, Any] | None = None  # where an earlier attempt was stopped
        self._origins: list[dict[str, Any]] = []  # epochs that were trained with other settings
        self._attributes: dict[str, Any] = {}
        self._data: dict[str, Any] | None = None
        self._epoch_lr: float | None = None
        self._saved_at = time.monotonic()
        self._saving_took = 0.0
        self.saved_point = ""  # for people

    def epoch_state(self) -> dict[str, Any]:
        """Hook: what is gathered from batch to batch within an epoch, tensors and plain values.

        Plain attributes that change are saved without it; see `dassl.engine.own_state`. What the
        base class returns belongs to it.
        """
        return {}

    def restore_epoch_state(self, state: dict[str, Any]) -> None:
        """Hook: put back what `epoch_state` returned; called after `before_epoch`."""

    def run_state(self) -> dict[str, Any]:
        """Also the settings, attributes that have changed, and how long the history is."""
        attributes = changed_attributes(self, self._attributes)
        return {
            **super().run_state(),
            "history_lines": self.record.lines,
            "settings": settings_text(self.cfg),
            "data": self.trained_data(),
            **({"attributes": attributes} if attributes["values"] else {}),
            **({"origins": self._origins} if self._origins else {}),
        }

    def restore_run_state(self, state: dict[str, Any]) -> None:
        """Also put back the attributes."""
        restore_attributes(self, state.get("attributes"))
        super().restore_run_state(state)

    def find_point(self, directory: str) -> None:
        """Load the latest point in a run's folder, for `restore_point`; nothing is changed yet.

        Args:
            directory: the run's folder; "" for none.

        Raises:
            UserError: it belongs to another model, or to a run of other settings.
        """
        self._resumed, self._origins = None, []
        if not directory:
            return
        state = load_point(
            Path(directory),
            self.get_model_names(),
            _readable(Path(directory) / RESUME),
            within=self.resumes_within_epoch,
            own=self.has_own_after_epoch(),
        )
        if state is None:
            return
        if settings_in(state) is None and (recorded := recorded_settings(directory)) is not None:
            state["settings"] = json.dumps(recorded)  # a checkpoint of an earlier version
        self.check_point(state)
        self._check_models(state)
        self._resumed, self._origins = state, origins_of(state, self.cfg)
        if self._origins:
            self.save_soon()  # or a second attempt would not know of them
        if Path(directory).resolve() == Path(self.output_dir).resolve():
            self.record.resume(state["epoch"], state.get("history_lines"))

    def check_point(self, state: dict[str, Any]) -> None:
        """Hook: refuse a point of another run; nothing has been changed yet.

        Args:
            state: the content of the file, in the form of resume.pth.tar, and its "path".

        Raises:
            UserError: it was trained with other settings or on other images.
        """
        check_settings(state, self.cfg)
        if self.cfg.SEED >= 0 or self.cfg.DATASET.NUM_SHOTS < 1:  # else each start draws its own
            check_data(state, self.trained_data())

    def trained_data(self) -> dict[str, Any]:
        """Hashes of the images that decide about the training, computed once; see `data_hashes`."""
        if self._data is None:
            found = data_hashes(getattr(getattr(self, "dm", None), "dataset", None)) or {}
            self._data = {part: found[part] for part in TRAINED_PARTS if part in found}
        return self._data

    def _check_models(self, state: dict[str, Any]) -> None:
        """Refuse what does not fit, and leave all models and generators as they are."""
        before = {name: copy.deepcopy(self.model_state(name)) for name in self.get_model_names()}
        generators = random_states()
        try:
            self._put_models_back(state)
            restore_random_states(state.get("random_states") or generators)
            if settings_in(state) is None:
                for name, model in before.items():
                    check_optimizer(state["path"], model, self.model_state(name))
        finally:
            for name, model in before.items():
                self.restore_model_state(name, model, None)
            restore_random_states(generators)

    def _put_models_back(self, state: dict[str, Any]) -> None:
        for name in self.get_model_names():
            # A copy, since an optimiser changes the tensors that it is given.
            model = copy.deepcopy(state["models"].get(name, {}))
            self.restore_model_state(name, {"epoch": state["epoch"], **model}, state["path"])

    def _put_back(self, state: dict[str, Any]) -> None:
        self._put_models_back(state)
        self.restore_run_state(state)

    def has_own_after_epoch(self) -> bool:
        """Whether a subclass does something after an epoch's checkpoint, which does not hold it."""
        return False

    def restore_point(self) -> None:
        """Engine's hook after `before_train`, which so does the same as in an unbroken run."""
        self._attributes = fingerprints(self)
        state = self._resumed
        if state is None:
            return
        self._put_back(state)
        self.saved_point = self._said(state["epoch"], state["batches"])
        point, path = self.saved_point, state["path"]
        print(f'Found checkpoint at "{path}" (will resume training after {point})')
        if not state["batches"]:
            self._resumed = None

    def resumed_epoch(self) -> int:
        """The epoch to resume with, from 0."""
        return int(self._resumed["epoch"]) if self._resumed else 0

    def origin_entries(self) -> dict[str, Any]:
        """For results.json: epochs that were trained with other settings than it has, if any."""
        return {"origins": self._origins} if self._origins else {}

    def batches_behind(self) -> int:
        """Of the epoch to resume with, the batches that an earlier attempt has finished."""
        return int(self._resumed["batches"]) if self._resumed else 0

    def enter_batches(self, losses: MetricMeter) -> int:
        """Begin an epoch's batches, or go on with them where an earlier attempt was stopped.

        Args:
            losses: gets the metrics of the batches behind.

        Returns:
            How many batches are behind.
        """
        state, self._resumed = self._resumed, None
        if not state or state["epoch"] != self.epoch:
            return 0
        losses.set_state(state["losses"])
        self._put_models_back(state)  # `before_epoch` has been called a second time
        self.restore_epoch_state(state["own"])
        self.restore_run_state(state)
        self.epoch_began -= float(state["seconds"])
        self._epoch_lr = state["lr"]  # perhaps the epoch's last batch has changed it
        return int(state["batches"])

    def batches_from(self, loader: Any, behind: int) -> Iterator[tuple[int, Any]]:
        """The batches of an epoch with their numbers, without those behind."""
        skipped = behind == 0 or skip_batches(loader, behind)
        return enumerate(loader if skipped else islice(loader, behind, None), start=behind)

    def reach(self, epoch: int, batches: int = 0, losses: MetricMeter | None = None) -> None:
        """Between two batches: save when it is time, and stop when that is wished.

        Args:
            epoch: the present one, or the next when one has ended.
            batches: how many of its batches are done.
            losses: their metrics.

        Raises:
            Interrupted: a signal came; the point is saved.
        """
        self.record.write_beginning()
        within = self.resumes_within_epoch and not STEP_HOOKS & vars(self).keys()
        stops = interruption.requested()
        if batches and not within:
            if stops:
                interruption.check()
            return
        waits = max(SAVE_SECONDS, self._saving_took / SAVE_SHARE)
        due = time.monotonic() - self._saved_at >= waits
        last = batches in (0, getattr(self, "num_batches", 0))
        if not (due or stops or last):
            return
        self.check_losses()
        self.check_learned()
        self._point = self._now(epoch, batches, losses)
        if last:  # models may change before it is written
            self._point = copy.deepcopy(self._point)
        if due:
            self.save_point()
        interruption.check()

    def _now(self, epoch: int, batches: int, losses: MetricMeter | None) -> dict[str, Any]:
        return {
            "epoch": epoch,
            "batches": batches,
            "seconds": time.perf_counter() - self.epoch_began,
            "lr": self._epoch_lr,
            "losses": losses.state() if losses is not None else {},
            "own": self.epoch_state() if batches else {},
            "models": {name: self.model_state(name) for name in self.get_model_names()},
            **self.run_state(),
        }

    def save_soon(self) -> None:
        """Save the next point that is reached, whenever the latest was saved."""
        self._saved_at = -math.inf

    def save_point(self) -> None:
        """Write the latest point that is known, unless it is written."""
        state, self._point = self._point, None
        if state is None:
            return
        start = time.monotonic()
        if self._writer is not None:
            self._writer.flush()
        save_checkpoint(state, self.output_dir, remove_module_from_keys=False, model_name=RESUME)
        self._saved_at = time.monotonic()
        self._saving_took = self._saved_at - start
        self.saved_point = self._said(state["epoch"], state["batches"])

    def forget_points(self) -> None:
        """Remove the file: the run has ended."""
        self._point = None
        with suppress(FileNotFoundError):
            (Path(self.output_dir) / RESUME).unlink()

    def _said(self, epoch: int, batches: int) -> str:
        if not batches:
            return f"epoch {epoch} of {self.max_epoch}"
        return f"batch {batches} of epoch {epoch + 1} of {self.max_epoch}"
