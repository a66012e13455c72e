"""Load the trained model of a run from its folder. Commands call it through `run_flags`."""

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
from trainers.core.prompt_file import PROMPT_FILE, read_tensors
from trainers.core.prompt_metadata import METADATA

LEARNER = "prompt_learner"  # folder of the checkpoints in a run's folder


@dataclass(frozen=True)
class Setup:
    """How a run without config.yaml, such as one of CoOp's own code, was trained.

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
    """Build the trainer of a run from its config.yaml and load a checkpoint.

    Args:
        run_dir: the run's folder.
        opts: KEY VALUE pairs that override the run's settings, such as another DATASET.ROOT.
        epoch: number of the checkpoint; None takes the best, else the newest.
        with_data: read the run's dataset; otherwise the trainer has class names but no images.
        classnames: without data, the classes to use instead of those of the training.
        setup: replaces a missing config.yaml.
        ignore_mismatch: load prompts although they were trained with other settings or classes.

    Raises:
        UserError: the folder contains no run, no checkpoint, or one that does not fit; or
            class-specific prompts were not trained for these classes.
        UserError: the backbone's weights are not available.
    """
    path = Path(run_dir)
    cfg = run_config(path, opts, setup)
    if not with_data:
        names = trained_classnames(path, epoch) if classnames is None else list(classnames)
        twice = [name for name in names if names.count(name) > 1]
        # Some datasets, such as ImageNet, have two classes of one name.
        if twice and known_classnames(path, epoch) != names:
            raise UserError(f'The class name "{twice[0]}" is given twice; list each class once')
        cfg = run_config(path, [*opts, *_without_data(cfg, names)], setup)
    trainer = build_trainer(cfg)
    loaded: FrozenCLIPTrainer = trainer
    if not isinstance(loaded, FrozenCLIPTrainer):
        raise UserError(
            f"{path}: {cfg.TRAINER.NAME} is not a method with a frozen CLIP; choose a run of one"
        )
    if trainer.get_model_names():
        trainer.ignore_mismatch = ignore_mismatch
        trainer.load_model(path, epoch=epoch)
    trainer.set_model_mode("eval")
    return loaded


def run_config(run_dir: PathLike, opts: Sequence[Any] = (), setup: Setup = Setup()) -> Any:
    """Return the configuration with which `load_run` loads a run.

    Raises:
        UserError: the folder contains no run, or a pair is invalid.
    """
    path = Path(run_dir)
    overrides: list[Any] = ["OUTPUT_DIR", str(path), "RESUME", "", "MODEL.INIT_WEIGHTS", "", *opts]
    if (path / CONFIG).is_file():
        if setup != Setup():
            raise UserError(
                f'"{path}" has a {CONFIG} of its own, so leave out --trainer, --config-file and '
                "--dataset-config-file, and change single settings with KEY VALUE pairs"
            )
        return load_config(config_file=str(path / CONFIG), opts=overrides)
    is_model_folder = any(path.glob("model*.pth.tar*"))
    if setup.trainer and path.is_dir() and not is_model_folder:
        flags = {"TRAINER.NAME": setup.trainer}
        return load_config(setup.dataset_config_file, setup.config_file, flags, overrides)
    why = f"{CONFIG} is missing"
    if not path.is_dir():
        why = "there is no such folder"
    elif is_model_folder:
        why = f'it contains the checkpoints of one; give the folder above, "{path.parent}"'
    elif (path / LEARNER).is_dir():
        why = (
            f"it has checkpoints but no {CONFIG}, as CoOp's own code leaves it; say how it was "
            "trained with --trainer, --config-file and --dataset-config-file, as for train.py"
        )
    raise UserError(f'"{path}" holds no run: {why}')


def _without_data(cfg: Any, names: list[str]) -> list[Any]:
    """Return overrides that replace the run's dataset by class names."""
    templates = cfg.DATASET.TEMPLATES
    if not templates and cfg.DATASET.NAME:
        templates = getattr(DATASET_REGISTRY.get(cfg.DATASET.NAME), "templates", ())
    return [
        *("DATASET.NAME", "ClassNames", "DATASET.CLASSNAMES", names),
        *("DATASET.TEMPLATES", list(templates), "DATASET.SUBSAMPLE_CLASSES", "all"),
        *("INPUT.TRAIN_VIEWS", 0),
    ]


def trained_classnames(run_dir: PathLike, epoch: int | None = None) -> list[str]:
    """Return the classes that a run's prompts were learned on, by label.

    Args:
        run_dir: the run's folder.
        epoch: number of the checkpoint; None takes the best, else the newest.

    Raises:
        UserError: no file records them: the method learns no prompts, or the run is third-party.
    """
    names = known_classnames(run_dir, epoch)
    if names is None:
        raise UserError(
            f"Neither a checkpoint nor {PROMPT_FILE} in {run_dir} names the classes that its "
            "prompts were learned on; name the classes yourself"
        )
    return names


def known_classnames(run_dir: PathLike, epoch: int | None = None) -> list[str] | None:
    """Return the same as `trained_classnames`, but None if no file records the classes.

    Raises:
        UserError: the checkpoint or prompt.safetensors is damaged.
    """
    path, names = Path(run_dir), None
    with contextlib.suppress(_NoCheckpoint):
        metadata = load_checkpoint(prompt_checkpoint(path, epoch)).get(METADATA)
        names = metadata.get("classnames") if isinstance(metadata, dict) else None
    if names is None and (path / PROMPT_FILE).is_file():  # an older run
        names = read_tensors(path / PROMPT_FILE)[1].get("classnames")
    valid = isinstance(names, list) and all(isinstance(n, str) and is_printable(n) for n in names)
    return names if valid else None


class _NoCheckpoint(UserError):
    """The requested checkpoint does not exist."""


def prompt_checkpoint(run_dir: Path, epoch: int | None = None) -> Path:
    """Return the checkpoint of a run's prompts.

    Args:
        run_dir: the run's folder.
        epoch: its number; None takes the best, else the newest.

    Raises:
        UserError: it does not exist.
    """
    try:
        path = CheckpointFolder(run_dir / LEARNER).choose(epoch)
    except UserError as error:
        raise _NoCheckpoint(str(error)) from error
    if not path.is_file():
        raise _NoCheckpoint(f'No checkpoint at "{path}"')
    return path


def checkpoint_epochs(run_dir: Path) -> list[int]:
    """Return the numbers of the checkpoints of a run's prompts, ascending."""
    paths = CheckpointFolder(run_dir / LEARNER).numbered()
    return sorted(number for path in paths if (number := number_of(path)) is not None)
