"""The corruption study of one run: test its corrupted prompts and write `corruption.json`.

    {"run": {"trainer", "method", "dataset", "shots", "seed", "backbone"},
     "checkpoint": {"file", "sha256"}, "noise_seed", "split", "num_test",
     "original": {"correct", "accuracy", "norms": one per position},
     "corruptions": [{"kind", "value", "position", "correct", "accuracy", "norm",
                      "accuracy_change", "norm_change"}, ...],
     "versions"}

Prompts of several layers have a file for each part, `corruption-<part>.json`, such as text (all
layers of the text encoder) or vision.2; "run" then contains "part".

Positions count from 0; accuracies are in %; a norm is L2, averaged over classes and prompt sets;
`value` is REPLACE's standard deviation or RESCALE's factor.
"""

import errno
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from dassl.engine import finished_run
from dassl.utils import package_versions
from nemesis.inference.classifier import Classifier, load
from nemesis.inference.load_run import checkpoint_identity
from nemesis.logs import LOGGER, hides_progress, logged
from nemesis.report.results import method_of
from safeio.checksums import DamagedFile, read_verified_json, write_json_with_checksum
from safeio.errors import UserError
from safeio.files import PathLike
from trainers.core.two_tower_trainer import TwoTowerTrainer
from trainers.nemesis import position_norms

from .corruption import Corruption, CorruptionGrid, corrupt, unit_noise
from .parts import TowerEvaluator, check_parts, parts_of
from .prompt_evaluation import PromptEvaluator


@dataclass
class Study:
    """Content of `corruption.json`; see the head of this file.

    `original` and `num_test` are empty until the learned prompts are tested.
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
        """Read a study; return None if the file is missing or, after a warning, damaged."""
        if not path.is_file():
            return None
        try:
            content = read_verified_json(path)
            rows = content.pop("corruptions")
            content.pop("versions")
            study = cls(**content)
            for row in rows:
                study.entries[Corruption(row["kind"], row["value"], row["position"])] = row
        except (OSError, DamagedFile, KeyError, TypeError, AttributeError) as error:
            why = error if isinstance(error, DamagedFile) else f"{path} cannot be read"
            LOGGER.warning("%s; the prompts are tested again", why)
            return None
        return study

    def write(self, path: Path) -> None:
        """Write the study atomically, with entries sorted by setting and position."""
        content = {key: value for key, value in vars(self).items() if key != "entries"}
        order = sorted(self.entries, key=lambda c: (c.kind, c.value, c.position))
        content["corruptions"] = [self.entries[corruption] for corruption in order]
        write_json_with_checksum({**content, "versions": package_versions()}, path)

    def belongs_to(self, other: "Study") -> bool:
        """Return whether both studies have the same checkpoint and noise."""
        return (self.checkpoint, self.noise_seed) == (other.checkpoint, other.noise_seed)

    def add(self, corruption: Corruption, correct: int, norm: float) -> None:
        """Add the result of one corrupted prompt."""
        change = Fraction(100 * (correct - self.original["correct"]), self.num_test)
        self.entries[corruption] = {
            **asdict(corruption),
            "correct": correct,
            "accuracy": 100 * correct / self.num_test,
            "norm": norm,
            "accuracy_change": float(change),
            "norm_change": norm - self.original["norms"][corruption.position],
        }


def study_file(run_dir: Path, epoch: int | None = None, part: str = "") -> Path:
    """Return the path of the study of a run's checkpoint."""
    number = "" if epoch is None else str(epoch)
    return run_dir / f"{'-'.join(filter(None, ('corruption', part, number)))}.json"


def _norms(ctx: Tensor) -> list[float]:
    """Return each position's norm, rounded as in history.jsonl."""
    return [round(norm, 6) for norm in position_norms(ctx).tolist()]


class StudiedRun:
    """A finished run whose corrupted prompts are tested; its model is loaded on first use.

    Args:
        run_dir: the run's folder.
        part: of prompts of several layers, see `parts_of`; None for the only or the first one.
        options: further arguments of `nemesis.load`.

    Attributes:
        path: the run's folder.
        parts: the parts of its prompts and their numbers of positions.
        part: the studied one, "" for prompts of one layer.
        length: L, the number of positions.
        facts: the entry "run" of the study's file.

    Raises:
        UserError: the folder contains no finished run of a method that learns prompts.
    """

    def __init__(self, run_dir: PathLike, part: str | None = None, **options: Any) -> None:
        self.path, self.options = Path(run_dir), options
        results = finished_run(self.path)
        if results is None:
            raise UserError("not a finished run: results.json is missing or damaged")
        if not results.get("n_ctx"):
            raise UserError(f"{results.get('trainer')} learns no prompts, so none can be corrupted")
        self.parts = parts_of(results)
        self.part = next(iter(self.parts)) if part is None else part
        check_parts([self.part], self.parts)
        self.length = self.parts[self.part]
        named = f" ({self.part})" if self.part else ""
        self.facts = {
            "trainer": results["trainer"],
            "method": f"{method_of(results)}{named}",
            **{key: results[key] for key in ("dataset", "shots", "seed", "backbone")},
            **({"part": self.part} if self.part else {}),
        }
        self._classifier: Classifier | None = None
        self._evaluator: PromptEvaluator | None = None
        self._is_read_only = False

    def study(self, grid: CorruptionGrid, epoch: int | None = None) -> Study:
        """Test the learned prompts and the grid's corruptions, unless the study contains them.

        Args:
            grid: the corruptions; the returned study may contain others, too.
            epoch: number of the checkpoint; None takes the best, else the newest.

        Raises:
            UserError: the checkpoint or a position does not exist, or see `nemesis.load`.
        """
        wanted = grid.corruptions(self.length)
        identity = checkpoint_identity(self.path, epoch)
        path = study_file(self.path, epoch, self.part)
        study = Study(self.facts, identity, grid.noise_seed)
        stored = Study.read(path)
        if stored is not None and stored.belongs_to(study):
            study = stored
        missing = [corruption for corruption in wanted if corruption not in study.entries]
        if missing or not study.original:
            self._test(self._load(epoch), missing, study, path)
        return study

    def _load(self, epoch: int | None) -> PromptEvaluator | TowerEvaluator:
        """Load the run at first; for further checkpoints, load only the prompts."""
        if self._classifier is None:
            self._classifier = load(self.path, epoch=epoch, with_data=True, **self.options)
        else:
            self._classifier.use_epoch(epoch)
        trainer = self._classifier.prompt_trainer()
        with logged():
            if isinstance(trainer, TwoTowerTrainer):
                return TowerEvaluator(trainer, self.part)
            if self._evaluator is None:
                self._evaluator = PromptEvaluator(trainer)
        return self._evaluator

    def _test(
        self,
        evaluator: PromptEvaluator | TowerEvaluator,
        missing: Sequence[Corruption],
        study: Study,
        path: Path,
    ) -> None:
        """Test missing corruptions group by group, and write the study after each group."""
        ctx = evaluator.ctx
        if not study.original:
            correct = int(evaluator.count(ctx.unsqueeze(0)))
            study.split, study.num_test = evaluator.split, evaluator.total
            accuracy = 100 * correct / study.num_test
            norms = _norms(ctx)
            study.original = {"correct": correct, "accuracy": accuracy, "norms": norms}
            self._write(study, path)
        noise = unit_noise(study.noise_seed, *ctx.shape[-2:])
        bar = tqdm(
            missing, unit="prompt", disable=hides_progress(), leave=False, desc=f"{path.parent}"
        )
        with bar:
            for start in range(0, len(missing), evaluator.at_once):
                part = missing[start : start + evaluator.at_once]
                groups = corrupt(ctx, part, noise)
                counts = evaluator.count(groups).tolist()
                for corruption, group, correct in zip(part, groups, counts, strict=True):
                    study.add(corruption, correct, _norms(group)[corruption.position])
                self._write(study, path)
                bar.update(len(part))

    def _write(self, study: Study, path: Path) -> None:
        """Write the study; if the run's folder is read-only, warn once instead."""
        try:
            study.write(path)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            if not self._is_read_only:
                why = f"{path} cannot be written: {error.strerror}"
                LOGGER.warning("%s; a second call tests all corruptions again", why)
            self._is_read_only = True
