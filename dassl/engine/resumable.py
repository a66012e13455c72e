"""From which point a killed run goes on, and how it gets there.

Besides Dassl's numbered checkpoints a run keeps one file, resume.pth.tar, that is written over
again and again while it trains and is gone when it has ended. It holds everything at one point
between two batches, so that what follows is the same, bit for bit, as if nothing had happened.
"""

import copy
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import NoneType
from typing import Any

from ..data.samplers import skip_batches
from ..utils import MetricMeter, UserError, find_checkpoint, load_checkpoint, save_checkpoint
from . import interruption
from .base import TrainerBase
from .run_record import RESUME, RunRecord

# At most so much is done a second time after a kill. Large models are saved less often: saving
# takes no more than this share of the time.
SAVE_SECONDS = 15.0
SAVE_SHARE = 0.02
# Hooks in which a trainer might gather something from batch to batch that we do not know of.
GATHERING = ("before_epoch", "run_epoch", "forward_backward", "parse_batch_train")


class ResumableTrainer(TrainerBase):
    """Saves points to go on from, and goes on from them.

    Attributes:
        record: counts the lines of the history.
        output_dir: the run's folder.
        best_result: see `ModelKeeper`.
    """

    record: RunRecord
    output_dir: str

    def __init__(self) -> None:
        super().__init__()
        self._point: dict[str, Any] | None = None  # the latest that is known, saved or not
        self._begun: dict[str, Any] = {}  # the epoch in which an earlier attempt was stopped
        self._epoch_lr: float | None = None
        self._saved_at = time.monotonic()
        self._saving_took = 0.0
        self._history_lines: int | None = None
        self.saved_point = ""  # for people

    def epoch_state(self) -> dict[str, Any]:
        """Hook: what is gathered from batch to batch within an epoch, tensors and plain values.

        A trainer that overrides one of the hooks `GATHERING` and this one, too, is saved between
        batches, others between epochs. What the base class returns belongs to it.
        """
        return {}

    def restore_epoch_state(self, state: dict[str, Any]) -> None:
        """Hook: put back what `epoch_state` returned; called after `before_epoch`."""

    def saves_within_epochs(self) -> bool:
        """Whether everything is known that the trainer gathers within an epoch."""
        known = self._definer("epoch_state")
        return all(known <= self._definer(hook) for hook in GATHERING)

    def _definer(self, name: str) -> int:
        """Which of the class and its bases defines something, counted from the class."""
        return next(i for i, base in enumerate(type(self).__mro__) if name in vars(base))

    def run_state(self) -> dict[str, Any]:
        """Also how much of the history belongs to this point."""
        return {**super().run_state(), "history_lines": self.record.lines}

    def restore_run_state(self, state: dict[str, Any]) -> None:
        """Also remember how much of the history belongs to it."""
        super().restore_run_state(state)
        self._history_lines = state.get("history_lines")

    def resume(self, directory: str) -> int:
        """Go on from the latest point in a run's folder, and cut the history off there.

        Args:
            directory: the run's folder.

        Returns:
            The epoch to go on with.

        Raises:
            UserError: the folder belongs to another model.
        """
        path = Path(directory) / RESUME
        state = _readable(path)
        if state is None or state["epoch"] < self._numbered_epoch(Path(directory)):
            epoch = self.resume_model_if_exist(directory)
            self.saved_point = self._said(epoch, 0) if epoch else ""
        else:
            epoch = self._take(state, path)
        same_folder = Path(directory).resolve() == Path(self.output_dir).resolve()
        self.record.begin(epoch, self._history_lines if same_folder else None)
        return epoch

    def _numbered_epoch(self, directory: Path) -> int:
        """How many epochs the newest numbered checkpoint has behind it, by its name."""
        newest = [find_checkpoint(directory / name) for name in self.get_model_names()]
        numbers = [path.name.rpartition("-")[2] if path else "0" for path in newest]
        return min((int(n) if n.isdecimal() else 0 for n in numbers), default=0)

    def _take(self, state: dict[str, Any], path: Path) -> int:
        for name in self.get_model_names():
            self.restore_model_state(name, state["models"].get(name, {}), path)
        self.restore_run_state(state)
        epoch, batches = int(state["epoch"]), int(state["batches"])
        self._begun = state if batches else {}
        self.saved_point = self._said(epoch, batches)
        print(f'Found "{path}" (will resume training after {self.saved_point})')
        return epoch

    def batches_behind(self) -> int:
        """Of the epoch to go on with, the batches that an earlier attempt has finished."""
        return int(self._begun.get("batches", 0))

    def enter_batches(self, losses: MetricMeter) -> int:
        """Begin an epoch's batches, or go on with them where an earlier attempt was stopped.

        Args:
            losses: gets the metrics of the batches behind.

        Returns:
            How many batches are behind.
        """
        state, self._begun = self._begun, {}
        if not state or state["epoch"] != self.epoch:
            return 0
        losses.set_state(state["losses"])
        self.restore_epoch_state(state["own"])
        # `before_epoch` may have drawn a second time.
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
        within = self.saves_within_epochs()
        stops = interruption.requested()
        if batches and not within:
            if stops:
                interruption.check()
            return
        waits = max(SAVE_SECONDS, self._saving_took / SAVE_SHARE)
        due = time.monotonic() - self._saved_at >= waits
        # A validation may follow the last batch, and what is kept must not change with the models.
        last = batches in (0, getattr(self, "num_batches", 0))
        if not (due or stops or last):
            return
        self.check_losses()
        self.check_learned()
        self._point = self._now(epoch, batches, losses)
        if not within:
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


_ENTRIES: dict[str, type | tuple[type, ...]] = {
    **{"epoch": int, "batches": int, "seconds": (int, float), "lr": (int, float, NoneType)},
    **{"losses": dict, "own": dict, "models": dict},
}


def _is_point(state: dict[str, Any]) -> bool:
    """Whether a checkpoint has the form of ours, whoever it is from."""
    if not all(isinstance(state.get(key), kinds) for key, kinds in _ENTRIES.items()):
        return False
    meters = state["losses"].values()
    return all(
        isinstance(meter, list | tuple)
        and len(meter) == 4
        and all(isinstance(number, int | float) for number in meter)
        for meter in meters
    )


def _readable(path: Path) -> dict[str, Any] | None:
    """The state in a file; None without one, or where it is damaged, which is said."""
    if not path.is_file():
        return None
    try:
        state = load_checkpoint(path)
        if _is_point(state):
            return state
        error = UserError(f'"{path}" is refused: it is no point to resume from')
    except UserError as refusal:
        error = refusal
    print(f"Warning: {error}; going on from an older checkpoint")
    return None
