"""From the folder of a finished run back to its model, for everything that comes after training.

Commands call it through `run_flags`.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dassl.config import load_config
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import CONFIG, build_trainer
from dassl.utils import CheckpointFolder, load_checkpoint
from dassl.utils.checkpoint_folder import number_of
from safeio.errors import UserError
from safeio.files import PathLike
from safeio.untrusted import is_printable
from trainers.core.features.evaluation import FrozenCLIPTrainer
from trainers.core.prompt_file import PROMPT_FILE, read_prompt_metadata
from trainers.core.prompt_origin import ORIGIN

LEARNER = "prompt_learner"  # the folder of a run's checkpoints


@dataclass(frozen=True)
class Setup:
    """How a folder without config.yaml, such as CoOp's own code leaves it, was trained.

    Attributes:
        trainer: the method's name.
        config_file: YAML of the method.
        dataset_config_file: YAML of the dataset.
    """

    trainer: str | None = None
    config_file: str | None = None
    dataset_config_file: str | None = None


def load_run(
    run_dir: PathLike,
    opts: Sequence[Any] = (),
    epoch: int | None = None,
    with_data: bool = True,
    classnames: Sequence[str] | None = None,
    setup: Setup = Setup(),
    ignore_mismatch: bool = False,
) -> FrozenCLIPTrainer:
    """Build the trainer of a run as its config.yaml says and load what it has learned.

    Args:
        run_dir: the run's folder.
        opts: KEY VALUE pairs that win over the run's own settings, such as another DATASET.ROOT.
        epoch: number of the checkpoint; None takes the best, or else the newest.
        with_data: read the run's dataset. Without, the trainer has class names but no images.
        classnames: without data, other classes than the run was trained on, or some of them.
        setup: takes the place of config.yaml where there is none.
        ignore_mismatch: load prompts also where these settings or classes are not their own.

    Raises:
        UserError: the folder holds no run, no checkpoint, or one that does not fit; or these
            classes are not what class-specific prompts were learned for.
        UserError: the backbone's weights cannot be had.
    """
    path = Path(run_dir)
    cfg = run_config(path, opts, setup)
    if not with_data:
        names = trained_classnames(path, epoch) if classnames is None else list(classnames)
        twice = [name for name in names if names.count(name) > 1]
        # Unless the prompts were learned on just these, two classes of one name are a mistake.
        if twice and known_classnames(path, epoch) != names:
            raise UserError(f'The class name "{twice[0]}" is given twice')
        cfg = run_config(path, [*opts, *_without_data(cfg, names)], setup)
    trainer = build_trainer(cfg)
    loaded: FrozenCLIPTrainer = trainer
    if not isinstance(loaded, FrozenCLIPTrainer):
        raise UserError(f"{path}: {cfg.TRAINER.NAME} is no method on a frozen CLIP of this project")
    if trainer.get_model_names():
        trainer.ignore_mismatch = ignore_mismatch
        trainer.load_model(path, epoch=epoch)
    trainer.set_model_mode("eval")
    return loaded


def run_config(run_dir: PathLike, opts: Sequence[Any] = (), setup: Setup = Setup()) -> Any:
    """The configuration of a run, to use what it has learned; see `load_run`.

    Raises:
        UserError: the folder holds no run, or a pair is wrong.
    """
    path = Path(run_dir)
    wins: list[Any] = ["OUTPUT_DIR", str(path), "RESUME", "", "MODEL.INIT_WEIGHTS", "", *opts]
    if (path / CONFIG).is_file():
        if setup != Setup():
            raise UserError(
                f'"{path}" has a {CONFIG} of its own, so leave out --trainer, --config-file and '
                "--dataset-config-file, and change single settings with KEY VALUE pairs"
            )
        return load_config(config_file=str(path / CONFIG), opts=wins)
    holds_checkpoints = any(path.glob("model*.pth.tar*"))  # the folder of a model, not of a run
    if setup.trainer and path.is_dir() and not holds_checkpoints:
        flags = {"TRAINER.NAME": setup.trainer}
        return load_config(setup.dataset_config_file, setup.config_file, flags, wins)
    why = f"{CONFIG} is missing"
    if not path.is_dir():
        why = "there is no such folder"
    elif holds_checkpoints:
        why = f'these are the checkpoints of one; give the folder above, "{path.parent}"'
    elif (path / LEARNER).is_dir():
        why = (
            f"it has checkpoints but no {CONFIG}, as CoOp's own code leaves it; say how it was "
            "trained with --trainer, --config-file and --dataset-config-file, as for train.py"
        )
    raise UserError(f'"{path}" holds no run: {why}')


def _without_data(cfg: Any, names: list[str]) -> list[Any]:
    """Overrides that put bare class names in the place of the run's dataset."""
    templates = cfg.DATASET.TEMPLATES
    if not templates and cfg.DATASET.NAME:  # a dataset need not have any
        templates = getattr(DATASET_REGISTRY.get(cfg.DATASET.NAME), "templates", ())
    return [
        *("DATASET.NAME", "ClassNames", "DATASET.CLASSNAMES", names),
        *("DATASET.TEMPLATES", list(templates), "DATASET.SUBSAMPLE_CLASSES", "all"),
        *("INPUT.TRAIN_VIEWS", 0),
    ]


def trained_classnames(run_dir: PathLike, epoch: int | None = None) -> list[str]:
    """The classes that a run's prompts were learned on, by label.

    Args:
        run_dir: the run's folder.
        epoch: number of the checkpoint; None takes the best, or else the newest.

    Raises:
        UserError: the run does not say: its method learns no prompts, or it is not ours.
    """
    names = known_classnames(run_dir, epoch)
    if names is None:
        raise UserError(
            f"Neither a checkpoint nor {PROMPT_FILE} in {run_dir} says which classes its prompts "
            "were learned on; name the classes yourself"
        )
    return names


def known_classnames(run_dir: PathLike, epoch: int | None = None) -> list[str] | None:
    """As `trained_classnames`, but None where the run does not say.

    Raises:
        UserError: the file that says so is damaged.
    """
    path, names = Path(run_dir), None
    with contextlib.suppress(_NoCheckpoint):
        origin = load_checkpoint(prompt_checkpoint(path, epoch)).get(ORIGIN)
        names = origin.get("classnames") if isinstance(origin, dict) else None
    if names is None and (path / PROMPT_FILE).is_file():  # older checkpoints leave it to this file
        names = read_prompt_metadata(path / PROMPT_FILE).get("classnames")
    valid = isinstance(names, list) and all(isinstance(n, str) and is_printable(n) for n in names)
    return names if valid else None


class _NoCheckpoint(UserError):
    """A run lacks the checkpoint that is asked for."""


def prompt_checkpoint(run_dir: Path, epoch: int | None = None) -> Path:
    """The checkpoint of a run's prompts.

    Args:
        run_dir: the run's folder.
        epoch: its number; None takes the best, or else the newest.

    Raises:
        UserError: there is none.
    """
    try:
        path = CheckpointFolder(run_dir / LEARNER).choose(epoch)
    except UserError as error:
        raise _NoCheckpoint(str(error)) from error
    if not path.is_file():
        raise _NoCheckpoint(f'No checkpoint at "{path}"')
    return path


def checkpoint_epochs(run_dir: Path) -> list[int]:
    """The numbers of the checkpoints of a run's prompts, ascending."""
    paths = CheckpointFolder(run_dir / LEARNER).numbered()
    return sorted(number for path in paths if (number := number_of(path)) is not None)
