"""A run's training, epoch by epoch: what history.jsonl and its checkpoints tell."""

import re
from dataclasses import dataclass
from pathlib import Path

from dassl.engine.run_record import read_history
from safeio.errors import UserError

from .runs import LEARNER
from .study import Plan, Study, Subject

CHECKPOINT = re.compile(r"model\.pth\.tar-(\d+)")


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

    subject: Subject
    epochs: list[Epoch]

    @property
    def title(self) -> str:
        """Which run this is."""
        return "{method}, {dataset}, {shots} shot(s), seed {seed}".format(**self.subject.facts)

    @property
    def studied(self) -> list[tuple[int, Study]]:
        """Epochs with a study."""
        return [(epoch.number, epoch.study) for epoch in self.epochs if epoch.study]


def checkpoints(run_dir: Path) -> list[int]:
    """The numbers of a run's checkpoints, ascending."""
    found = (CHECKPOINT.fullmatch(path.name) for path in (run_dir / LEARNER).glob("*"))
    return sorted(int(match.group(1)) for match in found if match)


def read_training(run_dir: Path, plan: Plan, every: int = 1, root: str = "") -> Training:
    """Read a run's history and study its checkpoints, as far as that has not been done.

    Args:
        run_dir: of a finished run.
        plan: the corruptions of each checkpoint.
        every: study the checkpoints of every so many epochs; the last one is always studied.
        root: folder of the datasets; "" for the run's own.

    Raises:
        UserError: there is no such run, or it has kept less than two checkpoints or no history.
    """
    subject = Subject(run_dir, root)
    kept = checkpoints(run_dir)
    if len(kept) < 2:
        raise UserError(
            f"{len(kept)} checkpoint(s) are there, but a course over epochs needs more: train "
            "with TRAIN.CHECKPOINT_FREQ 1"
        )
    lines = [line for line in read_history(run_dir) if line.get("event") == "train"]
    if not lines or any("position_norms" not in line for line in lines):
        raise UserError("history.jsonl is missing or tells no norms of the prompt's positions")
    wanted = [number for number in kept if number % every == 0 or number == kept[-1]]
    studies = {number: subject.study(plan, number) for number in wanted}
    asked = set(plan.corruptions(subject.length))
    for study in studies.values():  # an earlier call may have tested others
        study.entries = {c: row for c, row in study.entries.items() if c in asked}
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
    return Training(subject, epochs)
