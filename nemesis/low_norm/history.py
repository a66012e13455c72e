"""Read a run's training epoch by epoch: its history, and a study of each tested checkpoint."""

from dataclasses import dataclass
from typing import Any

from nemesis.api import Run
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
        study: of its checkpoint; None if it was not tested.
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


def read_training(run: StudiedRun, grid: CorruptionGrid, every: int = 1) -> Training:
    """Read a run's history and test its checkpoints, unless an earlier call has tested them.

    Args:
        run: a finished run.
        grid: the corruptions to test of each checkpoint.
        every: test every n-th epoch; the last one is always tested.

    Raises:
        UserError: the run has fewer than two checkpoints or no history.
    """
    numbers = checkpoint_epochs(run.path)
    if len(numbers) < 2:
        raise UserError(
            f"the run has {len(numbers)} checkpoint(s), but a figure over epochs needs at least 2; "
            "train with TRAIN.CHECKPOINT_FREQ 1"
        )
    lines = [line for line in Run(run.path).history if line.get("event") == "train"]
    if not lines or any("position_norms" not in line for line in lines):
        raise UserError(
            "history.jsonl is missing or does not record the norm at each position; train the run "
            "again"
        )
    wanted = [number for number in numbers if number % every == 0 or number == numbers[-1]]
    studies = {number: run.study(grid, number) for number in wanted}
    lines = [_of_part(line, run) for line in lines]
    corruptions = set(grid.corruptions(run.length))
    for study in studies.values():  # it may contain other corruptions from earlier calls
        study.entries = {c: row for c, row in study.entries.items() if c in corruptions}
    return Training(run, [_epoch(line, studies) for line in lines])


def _epoch(line: dict[str, Any], studies: dict[int, Study]) -> Epoch:
    number = line["epoch"] + 1
    norms, selections = line["position_norms"], line.get("selections")
    return Epoch(number, line["loss"], norms, selections, studies.get(number))


def _of_part(line: dict[str, Any], run: StudiedRun) -> dict[str, Any]:
    """Return the epoch's line with the norms and selections of the run's part alone."""
    tower, _, layer = run.part.partition(".")
    if not tower:
        return line
    # Text positions come first.
    cut = slice(run.length) if tower == "text" else slice(-run.length, None)
    counts = line.get("selections")
    own = {"selections": counts[cut]} if counts else {}
    norms = line[f"norms_{run.part}"] if layer else line["position_norms"][cut]
    return {**line, **own, "position_norms": norms}
