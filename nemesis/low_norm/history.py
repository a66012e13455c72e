"""Read a run's training epoch by epoch, from history.jsonl and its checkpoints."""

from dataclasses import dataclass
from pathlib import Path

from dassl.engine.run_record import read_history
from nemesis.inference.load_run import checkpoint_epochs
from safeio.errors import UserError

from .corruption import CorruptionGrid
from .study import StudiedRun, Study


@dataclass(frozen=True)
class Epoch:
    """One training epoch.

    Attributes:
        number: of the epoch and its checkpoint, from 1.
        loss: mean over the epoch.
        norms: of each position at the end of the epoch.
        selections: how often PAN selected each position; None without PAN.
        study: study of its checkpoint; None if it was not tested.
    """

    number: int
    loss: float
    norms: list[float]
    selections: list[int] | None
    study: Study | None

    @property
    def mean_norm(self) -> float:
        """Mean norm over the positions."""
        return sum(self.norms) / len(self.norms)

    @property
    def accuracy(self) -> float | None:
        """Test accuracy in % at the end of the epoch, if tested."""
        return self.study.original["accuracy"] if self.study else None


@dataclass(frozen=True)
class Training:
    """All epochs of a run."""

    run: StudiedRun
    epochs: list[Epoch]

    @property
    def title(self) -> str:
        """The run's method, dataset, shots and seed."""
        return "{method}, {dataset}, {shots} shot(s), seed {seed}".format(**self.run.facts)

    @property
    def studied(self) -> list[tuple[int, Study]]:
        """Numbers and studies of the epochs that have one."""
        return [(epoch.number, epoch.study) for epoch in self.epochs if epoch.study]


def read_training(run_dir: Path, grid: CorruptionGrid, every: int = 1, root: str = "") -> Training:
    """Read a run's history and test its checkpoints, unless an earlier call has tested them.

    Args:
        run_dir: of a finished run.
        grid: the corruptions to test of each checkpoint.
        every: test every n-th epoch; the last one is always tested.
        root: folder of the datasets; "" for the run's own.

    Raises:
        UserError: the run does not exist, or has fewer than two checkpoints or no history.
    """
    run, numbers = StudiedRun(run_dir, root), checkpoint_epochs(run_dir)
    if len(numbers) < 2:
        raise UserError(
            f"the run has {len(numbers)} checkpoint(s), but a figure over epochs needs at least 2; "
            "train with TRAIN.CHECKPOINT_FREQ 1"
        )
    lines = [line for line in read_history(run_dir) if line.get("event") == "train"]
    if not lines or any("position_norms" not in line for line in lines):
        raise UserError(
            "history.jsonl is missing or does not record the norm at each position; train the run "
            "again"
        )
    wanted = [number for number in numbers if number % every == 0 or number == numbers[-1]]
    studies = {number: run.study(grid, number) for number in wanted}
    corruptions = set(grid.corruptions(run.length))
    for study in studies.values():  # it may contain other corruptions from earlier calls
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
