"""The corruption study of one run: what `corruption.json` holds and how it comes about.

    {"run": {"trainer", "method", "dataset", "shots", "seed", "backbone"},
     "checkpoint": {"file", "sha256"}, "noise_seed", "split", "num_test",
     "original": {"correct", "accuracy", "norms": one per position},
     "corruptions": [{"kind", "value", "position", "correct", "accuracy", "norm",
                      "accuracy_change", "norm_change"}, ...],
     "versions"}

Positions count from 0, accuracies are in %, a norm is L2, the mean over classes' and sets' prompts.
`value` is REPLACE's standard deviation, or RESCALE's factor.
"""

import contextlib
import errno
import io
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from analysis.corruption.corruption import REPLACE, RESCALE, Corruption, corrupt, unit_noise
from analysis.corruption.prompt_evaluation import PromptEvaluator
from analysis.results import method_of
from clip.download import sha256_of
from dassl.engine import finished_run
from dassl.utils import CheckpointFolder, package_versions
from safeio.checksums import DamagedFile, read_sealed, write_sealed
from safeio.errors import UserError
from safeio.files import PathLike
from trainers.core.open_run import open_run
from trainers.core.prompt_trainer import PromptTrainer
from trainers.nemesis import vector_norms

from .runs import LEARNER

STDS = (0.0, 0.001, 0.01, 0.1, 0.5)
FACTORS = (0.001, 0.01, 0.1, 0.5, 2.0)


@dataclass(frozen=True)
class Plan:
    """Which corruptions are wanted.

    Attributes:
        replace: standard deviations of REPLACE.
        rescale: factors of RESCALE.
        positions: from 0; None for all.
        noise_seed: what REPLACE's noise is drawn with, the same for every run.
    """

    replace: tuple[float, ...] = STDS
    rescale: tuple[float, ...] = FACTORS
    positions: tuple[int, ...] | None = None
    noise_seed: int = 0

    @property
    def settings(self) -> list[tuple[str, float]]:
        """Kinds and values."""
        return [(REPLACE, std) for std in self.replace] + [(RESCALE, s) for s in self.rescale]

    def corruptions(self, length: int) -> list[Corruption]:
        """All of them, by position: prompts share what they compute before the changed vector.

        Raises:
            UserError: a position that prompts of this length do not have.
        """
        wanted = range(length) if self.positions is None else self.positions
        for position in wanted:
            if position >= length:
                raise UserError(
                    f"position {position} is not there: the prompt has {length} vectors, "
                    f"0 to {length - 1}"
                )
        return [Corruption(kind, value, j) for j in wanted for kind, value in self.settings]


def check_values(flag: str, values: Sequence[float]) -> None:
    """Refuse what is neither a standard deviation nor a factor of the study.

    Raises:
        UserError: a negative value, or none at all (infinite, not a number).
    """
    for value in values:
        if not (value >= 0 and math.isfinite(value)):
            raise UserError(f"{flag} is {value:g}, but must be a finite number from 0 on")


@dataclass
class Study:
    """What is known of a run's corrupted prompts; see the file's head.

    `original` and `num_test` are empty until the learned prompts have been tested.
    """

    run: dict[str, Any]
    checkpoint: dict[str, str]
    noise_seed: int
    split: str = ""
    num_test: int = 0
    original: dict[str, Any] = field(default_factory=dict)
    entries: dict[Corruption, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Study | None":
        """A study from its file; None if there is none, or, after a warning, if it is damaged."""
        if not path.is_file():
            return None
        try:
            content = read_sealed(path)
            rows = content.pop("corruptions")
            content.pop("versions")
            study = cls(**content)
            for row in rows:
                study.entries[Corruption(row["kind"], row["value"], row["position"])] = row
        except (OSError, DamagedFile, KeyError, TypeError, AttributeError) as error:
            why = error if isinstance(error, DamagedFile) else f"{path} cannot be read"
            print(f"Warning: {why}; its prompts are tested again", file=sys.stderr)
            return None
        return study

    def write(self, path: Path) -> None:
        """Write the study, atomically; entries by setting, then position."""
        content = {key: value for key, value in vars(self).items() if key != "entries"}
        order = sorted(self.entries, key=lambda c: (c.kind, c.value, c.position))
        content["corruptions"] = [self.entries[corruption] for corruption in order]
        write_sealed({**content, "versions": package_versions()}, path)

    def belongs_to(self, other: "Study") -> bool:
        """Whether both are of the same prompts and the same noise."""
        return (self.checkpoint, self.noise_seed) == (other.checkpoint, other.noise_seed)

    def add(self, corruption: Corruption, correct: int, norm: float) -> None:
        """Take up the test of one corrupted prompt."""
        change = Fraction(100 * (correct - self.original["correct"]), self.num_test)
        self.entries[corruption] = {
            **asdict(corruption),
            "correct": correct,
            "accuracy": 100 * correct / self.num_test,
            "norm": norm,
            "accuracy_change": float(change),
            "norm_change": norm - self.original["norms"][corruption.position],
        }


def position_norms(ctx: Tensor) -> list[float]:
    """Each position's norm, as a run's history has it."""
    sets = ctx.numel() // (ctx.shape[-1] * ctx.shape[-2])
    return [round(norm / sets, 6) for norm in vector_norms(ctx).tolist()]


class Subject:
    """A finished run whose prompts are corrupted; its model is loaded when it is needed.

    Args:
        run_dir: the run's folder.
        root: folder of the datasets; "" for the run's own.
        ignore_mismatch: see `open_run`.

    Raises:
        UserError: the folder holds no finished run of a method that learns prompts.
    """

    def __init__(self, run_dir: PathLike, root: str = "", ignore_mismatch: bool = False) -> None:
        self.path = Path(run_dir)
        self.root = root
        self.ignore_mismatch = ignore_mismatch
        results = finished_run(self.path)
        if results is None:
            raise UserError("no finished run is there: results.json is missing or damaged")
        if not results.get("n_ctx"):
            raise UserError(f"{results.get('trainer')} learns no prompts, so none can be corrupted")
        self.length = int(results["n_ctx"])
        self.facts = {
            "trainer": results["trainer"],
            "method": method_of(results),
            **{key: results[key] for key in ("dataset", "shots", "seed", "backbone")},
        }
        self._evaluator: PromptEvaluator | None = None
        self._warned = False

    def file(self, epoch: int | None) -> Path:
        """Where the study of a checkpoint is kept."""
        return self.path / ("corruption.json" if epoch is None else f"corruption-{epoch}.json")

    def study(self, plan: Plan, epoch: int | None = None) -> Study:
        """Test the prompts and all of the plan's corruptions that have not been tested.

        Args:
            plan: what is wanted; the study may know more.
            epoch: number of the checkpoint; None takes the best, or else the newest.

        Raises:
            UserError: no such checkpoint, or position, or the run cannot be opened again.
            UserError: the backbone's weights cannot be had.
        """
        wanted = plan.corruptions(self.length)
        checkpoint = CheckpointFolder(self.path / LEARNER).choose(epoch)
        identity = {"file": f"{LEARNER}/{checkpoint.name}", "sha256": _digest_of(checkpoint)}
        study = Study(dict(self.facts), identity, plan.noise_seed)
        known = Study.read(self.file(epoch))
        if known is not None and known.belongs_to(study):
            study = known
        missing = [corruption for corruption in wanted if corruption not in study.entries]
        if missing or not study.original:
            with contextlib.redirect_stdout(io.StringIO()):  # what opening a run says
                evaluator = self._open(epoch)
            self._fill(study, evaluator, missing, epoch)
        return study

    def _fill(
        self,
        study: Study,
        evaluator: PromptEvaluator,
        missing: Sequence[Corruption],
        epoch: int | None,
    ) -> None:
        """Test what is missing; what is done so far is written after every few prompts."""
        ctx = evaluator.trainer.model.prompt_learner.ctx.detach()
        if not study.original:
            correct = int(evaluator.count(ctx.unsqueeze(0)))
            study.split, study.num_test = evaluator.split, evaluator.total
            accuracy = 100 * correct / study.num_test
            norms = position_norms(ctx)
            study.original = {"correct": correct, "accuracy": accuracy, "norms": norms}
            self._keep(study, epoch)
        noise = unit_noise(study.noise_seed, *ctx.shape[-2:])
        with tqdm(
            total=len(missing), unit="prompt", disable=None, leave=False, desc=str(self.path)
        ) as bar:
            for start in range(0, len(missing), evaluator.at_once):
                part = missing[start : start + evaluator.at_once]
                groups = corrupt(ctx, part, noise)
                counts = evaluator.count(groups).tolist()
                for corruption, group, correct in zip(part, groups, counts, strict=True):
                    study.add(corruption, correct, position_norms(group)[corruption.position])
                self._keep(study, epoch)
                bar.update(len(part))

    def _keep(self, study: Study, epoch: int | None) -> None:
        """Write the study into the run's folder, where that can be written to."""
        path = self.file(epoch)
        try:
            study.write(path)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            if not self._warned:
                why = f"{path} cannot be written: {error.strerror}"
                print(f"Warning: {why}; a second call tests all corruptions again", file=sys.stderr)
            self._warned = True

    def _open(self, epoch: int | None) -> PromptEvaluator:
        """The run's test set with the checkpoint's prompts; a second one is only loaded."""
        if self._evaluator is None:
            opts = ("DATASET.ROOT", self.root) if self.root else ()
            trainer = open_run(self.path, opts, epoch=epoch, ignore_mismatch=self.ignore_mismatch)
            if not isinstance(trainer, PromptTrainer):
                raise UserError(f"{trainer.cfg.TRAINER.NAME} learns no prompts")
            self._evaluator = PromptEvaluator(trainer)
        else:
            self._evaluator.trainer.load_model(self.path, epoch=epoch)
        return self._evaluator


def _digest_of(checkpoint: Path) -> str:
    if not checkpoint.is_file():
        raise UserError(f'No checkpoint at "{checkpoint}"')
    return sha256_of(checkpoint)
