"""Train the tasks of a dataset in order and test all classes after each of them.

DATASET.TASKS, TASK and TASK_CLASSES select the classes; the run's seed draws their order. After
each task, the text classifier of all seen names is tested on all seen classes, and that of the
names still to come on their classes. Trainers are unchanged: a strategy states in settings what the
next task takes from the runs before.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from dassl.config import CfgNode
from dassl.data.datasets import build_dataset
from dassl.data.datasets.splits import task_bounds
from dassl.engine import TRAINER_REGISTRY, check_trainer
from dassl.engine.build import learns
from dassl.utils import CheckpointFolder, check_availability
from nemesis.api import train
from nemesis.inference.load_run import LoadOptions, learner_folder, load_trainer
from nemesis.inference.merged_clip import MERGED, save_merged_clip
from nemesis.logs import logged
from nemesis.run_config import build_config
from safeio.errors import UserError
from trainers.core.lora_checkpoints import ADAPTER_FILE
from trainers.core.lora_trainer import LoRATrainer

ZERO_SHOT, ORTHOGONAL = "ZeroshotCLIP", "OrthogonalLoRA"
DEFAULT = "CoOp:sequential:mini_generic"


def sequential(runs: Sequence[Path]) -> dict[str, Any]:
    """Start from the prompts or adapters of the previous task."""
    folder = learner_folder(runs[-1])
    if folder is None:
        raise UserError(f"{runs[-1]} has no checkpoint of prompts or adapters to start from")
    return {"MODEL.INIT_WEIGHTS": str(CheckpointFolder(folder).choose(None))}


def merged(runs: Sequence[Path]) -> dict[str, Any]:
    """Merge the adapters of the past tasks into the backbone of a new adapter."""
    with logged():
        trainer: Any = load_trainer(runs[-1])
    file, *_ = save_merged_clip(trainer, runs[-1] / MERGED, overwrite=True)
    return {"MODEL.BACKBONE.NAME": str(file)}


def orthogonal(runs: Sequence[Path]) -> dict[str, Any]:
    """Merge the past, and keep the rows of A orthogonal to all of it (OrthogonalLoRA)."""
    past = [str(run / ADAPTER_FILE) for run in runs]
    return {**merged(runs), "TRAINER.ORTHOGONALLORA.PAST": past}


# Strategy -> the settings of the next task's run, given the runs of the tasks before.
STRATEGIES: dict[str, Callable[[Sequence[Path]], dict[str, Any]]] = {
    "sequential": sequential,
    "merged": merged,
    "orthogonal": orthogonal,
}


@dataclass(frozen=True)
class Method:
    """A row of the table: a trainer, how its tasks follow each other, and its own config."""

    trainer: str
    strategy: str = "sequential"
    config: str = ""

    @classmethod
    def parse(cls, text: str) -> "Method":
        """Read TRAINER[:STRATEGY[:CONFIG]].

        Raises:
            UserError: the strategy is unknown.
        """
        method = cls(*text.split(":", 2))
        check_availability(method.strategy, list(STRATEGIES))
        return method

    @property
    def label(self) -> str:
        """The name of the row."""
        parts = [self.trainer] if self.trainer == ZERO_SHOT else [self.trainer, self.strategy]
        return ", ".join([*parts, *([Path(self.config).stem] if self.config else [])])

    def check(self, cfg: CfgNode) -> None:
        """Refuse with a UserError a trainer that cannot learn tasks in this way."""
        trainer: Any = TRAINER_REGISTRY.get(self.trainer)
        node = getattr(trainer, "node", "")
        adapters = isinstance(trainer, type) and issubclass(trainer, LoRATrainer)
        if getattr(trainer, "bound_to_classes", False):
            fault = "what it learns serves only the classes of its training; choose another method"
        elif cfg.TRAINER.get(node, {}).get("CSC", False):
            fault = (
                "class-specific prompts serve only the classes of their training; set "
                f"TRAINER.{node}.CSC False, or choose generic prompts, as in {DEFAULT}"
            )
        elif self.strategy != "sequential" and not adapters:
            fault = "it has no adapters to merge; choose the strategy sequential"
        elif (self.trainer == ORTHOGONAL) != (self.strategy == "orthogonal"):
            fault = f"the strategy orthogonal is that of {ORTHOGONAL}, and its only one"
        else:
            return
        raise UserError(f"{self.label}: {fault}")


@dataclass(frozen=True)
class Protocol:
    """What all methods have in common.

    Attributes:
        dataset, config, shots, tasks: see `nemesis.train`; `tasks` is their number.
        output: folder of all runs.
        root: folder of the datasets.
        settings: {"KEY": value} of every run.
    """

    dataset: str
    config: str
    shots: int
    tasks: int
    output: Path
    root: str
    settings: Mapping[str, Any]

    def task_settings(self, task: int, part: str) -> dict[str, Any]:
        """Return the settings that select classes."""
        return {"DATASET.TASKS": self.tasks, "DATASET.TASK": task, "DATASET.TASK_CLASSES": part}

    def _settings(self, method: Method, task: int) -> dict[str, Any]:
        """Return the settings of a task's run; zero-shot CLIP takes no training views."""
        untrained = {"INPUT.TRAIN_VIEWS": 0} if method.trainer == ZERO_SHOT else {}
        return {**self.settings, **untrained, **self.task_settings(task, "own")}

    def check(self, method: Method) -> bool:
        """Check a method's configuration and the dataset's number of classes.

        Returns:
            Whether the method learns.

        Raises:
            UserError: a setting is invalid, the method cannot learn tasks in this way, or the
                dataset has too few classes or is missing.
        """
        flags = {"DATASET.ROOT": self.root, "DATASET.NUM_SHOTS": self.shots, "SEED": 1}
        settings = self._settings(method, 1)
        with logged():
            cfg = build_config(
                self.dataset, method.trainer, method.config or self.config, flags, settings
            )
            check_trainer(cfg)
            method.check(cfg)
            build_dataset(cfg)
        return learns(cfg)

    def train(self, method: Method, seed: int, verbose: bool = False) -> list[Path]:
        """Train all tasks in order, or resume; return the folders of the runs.

        Zero-shot CLIP has one run, which is the same for all tasks.
        """
        folder = self.output / method.label.replace(", ", "-") / f"seed{seed}"
        runs: list[Path] = []
        own: dict[str, Any] = {}
        count = self.tasks if self.check(method) else 1
        for task in range(1, count + 1):
            if runs:
                own = STRATEGIES[method.strategy](runs)
            run = train(
                method.trainer,
                self.dataset,
                method.config or self.config,
                shots=self.shots,
                seed=seed,
                output_dir=folder / f"task{task}",
                root=self.root,
                settings={**self._settings(method, task), **own},
                resume=True,
                verbose=verbose,
            )
            runs.append(run.folder)
        return runs * (self.tasks // len(runs))

    def evaluate(self, runs: Sequence[Path], verbose: bool = False) -> "Outcome":
        """Test the run of every task on the seen and the unseen classes."""
        tests = list(enumerate(runs, 1))
        seen = [self._hits(run, task, "seen", verbose) for task, run in tests]
        unseen = [self._hits(run, task, "unseen", verbose) for task, run in tests[:-1]]
        parts = list(pairwise(task_bounds(len(seen[-1][1]), self.tasks)))
        matrix = [
            [_percent(hits[a:b], total[a:b]) for a, b in parts[:task]]
            for task, (hits, total) in enumerate(seen, 1)
        ]
        return Outcome([_percent(*one) for one in seen], [_percent(*one) for one in unseen], matrix)

    def _hits(self, run: Path, task: int, part: str, verbose: bool) -> tuple[Any, Any]:
        """Return the number of correctly classified and of all test images of each class."""
        options = LoadOptions(settings=self.task_settings(task, part))
        with logged(verbose):
            trainer: Any = load_trainer(run, options, with_data=True)
            trainer.check_evaluation()
            classes = len(trainer.dm.dataset.classnames)
            correct, total = torch.zeros(2, classes, dtype=torch.long)
            with trainer.cached_text_features():
                for logits, labels in trainer.predictions(trainer.test_loader):
                    hits = labels[logits.argmax(1) == labels].cpu()
                    correct += torch.bincount(hits, minlength=classes)
                    total += torch.bincount(labels.cpu(), minlength=classes)
        return correct, total


def _percent(correct: Any, total: Any) -> float:
    return 100 * float(correct.sum() / total.sum())


@dataclass(frozen=True)
class Outcome:
    """Accuracies (in %) of a method with one seed; tasks count from 0 here.

    Attributes:
        seen: after each task, on all seen classes among all seen names.
        unseen: after each task but the last, on the classes to come among their names.
        matrix: after each task, on the classes of each task up to it, among all seen names.
    """

    seen: list[float]
    unseen: list[float]
    matrix: list[list[float]]

    def measures(self, zero_shot: "Outcome") -> dict[str, float]:
        """Return the columns of the table.

        forgetting is that of Chaudhry et al. (ECCV 2018): for each task but the last, its best
        accuracy before the last task minus that after it. The zero-shot drop is the accuracy of
        zero-shot CLIP minus the method's on unseen classes. Both are means over the tasks.
        """
        last = self.matrix[-1]
        forgotten = [
            max(row[task] for row in self.matrix[task:-1]) - last[task]
            for task in range(len(last) - 1)
        ]
        drops = [a - b for a, b in zip(zero_shot.unseen, self.unseen, strict=True)]
        return {
            "average": statistics.fmean(self.seen),
            "last": self.seen[-1],
            "forgetting": statistics.fmean(forgotten),
            "zero-shot drop": statistics.fmean(drops),
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the accuracies for JSON."""
        return asdict(self)
