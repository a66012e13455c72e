"""A run's training, epoch by epoch: from history.jsonl and its checkpoints."""

from dataclasses import dataclass
from pathlib import Path

from analysis.load_run import checkpoint_epochs
from dassl.engine.run_record import read_history
from safeio.errors import UserError

from .corruption import CorruptionGrid
from .study import StudiedRun, Study


@dataclass(frozen=True)
class Epoch:
    """One training epoch.

    Attributes:
        number: finished epochs, as checkpoints count them; the first is 1.
        loss: the epoch's mean.
        norms: of each position at the end of the epoch.
        selections: how often PAN selected each position; None without PAN.
        study: its checkpoint's accuracy and corruptions; None where it was not studied.
    """

    number: int
    loss: float
    norms: list[float]
    selections: list[int] | None
    study: Study | None

    @property
    def mean_norm(self) -> float:
        """Over the positions."""
        return sum(self.norms) / len(self.norms)

    @property
    def accuracy(self) -> float | None:
        """Test accuracy in % at the end of the epoch."""
        return self.study.original["accuracy"] if self.study else None


@dataclass(frozen=True)
class Training:
    """All epochs of a run."""

    run: StudiedRun
    epochs: list[Epoch]

    @property
    def title(self) -> str:
        """Which run this is."""
        return "{method}, {dataset}, {shots} shot(s), seed {seed}".format(**self.run.facts)

    @property
    def studied(self) -> list[tuple[int, Study]]:
        """Epochs with a study."""
        return [(epoch.number, epoch.study) for epoch in self.epochs if epoch.study]


def read_training(run_dir: Path, grid: CorruptionGrid, every: int = 1, root: str = "") -> Training:
    """Read a run's history and study its checkpoints, as far as that has not been done.

    Args:
        run_dir: of a finished run.
        grid: the corruptions of each checkpoint.
        every: study the checkpoints of every so many epochs; the last one is always studied.
        root: folder of the datasets; "" for the run's own.

    Raises:
        UserError: there is no such run, or it has less than two checkpoints or no history.
    """
    run, numbers = StudiedRun(run_dir, root), checkpoint_epochs(run_dir)
    if len(numbers) < 2:
        raise UserError(
            f"{len(numbers)} checkpoint(s) are there, but a course over epochs needs more: train "
            "with TRAIN.CHECKPOINT_FREQ 1"
        )
    lines = [line for line in read_history(run_dir) if line.get("event") == "train"]
    if not lines or any("position_norms" not in line for line in lines):
        raise UserError("history.jsonl is missing or tells no norms of the prompt's positions")
    wanted = [number for number in numbers if number % every == 0 or number == numbers[-1]]
    studies = {number: run.study(grid, number) for number in wanted}
    corruptions = set(grid.corruptions(run.length))
    for study in studies.values():  # an earlier call may have tested others
        study.entries = {c: row for c, row in study.entries.items() if c in corruptions}
    epochs = [
        Epoch(
            line["epoch"] + 1,
            line["loss"],
            line["position_norms"],
            line.get("selections"),
            studies.get(line["epoch"] + 1),
        )
        for line in lines
    ]
    return Training(run, epochs)
