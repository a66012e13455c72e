"""From a run's folder back to its trained model, for everything that comes after training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dassl.config import load_config
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import CONFIG, TRAINER_REGISTRY, build_trainer
from dassl.utils import PathLike, UserError
from dassl.utils.strangers import is_printable

from .feature_trainer import FeatureTrainer
from .prompt_file import PROMPT_FILE, read_prompt_metadata


def open_run(
    run_dir: PathLike,
    opts: Sequence[Any] = (),
    epoch: int | None = None,
    with_data: bool = True,
    classnames: Sequence[str] | None = None,
) -> FeatureTrainer:
    """Build the trainer of a run as its config.yaml says and load what it has learned.

    Args:
        run_dir: the run's folder.
        opts: KEY VALUE pairs that win over the run's own settings, such as another DATASET.ROOT.
        epoch: number of the checkpoint; None takes the best, or else the newest.
        with_data: read the run's dataset. Without, the trainer has class names but no images.
        classnames: without data, other classes than the run was trained on.

    Raises:
        UserError: the folder holds no run, no checkpoint, or one that does not fit; or these
            classes are not what class-specific prompts were learned for.
        clip.errors.ClipError: the backbone's weights cannot be had.
    """
    path = Path(run_dir)
    cfg = run_config(path, opts)
    if not with_data:
        cfg = run_config(path, [*opts, *_without_data(path, cfg, classnames)])
    trainer = build_trainer(cfg)
    if not isinstance(trainer, FeatureTrainer):
        raise UserError(f"{path}: {cfg.TRAINER.NAME} is no method on a frozen CLIP of this project")
    if trainer.get_model_names():
        trainer.load_model(path, epoch=epoch)
    trainer.set_model_mode("eval")
    return trainer


def run_config(run_dir: PathLike, opts: Sequence[Any] = ()) -> Any:
    """The configuration of a run, to go on with what it has learned.

    Args:
        run_dir: the run's folder.
        opts: KEY VALUE pairs that win over the run's own settings.

    Raises:
        UserError: the folder holds no run, or a pair is wrong.
    """
    path = Path(run_dir)
    if not (path / CONFIG).is_file():
        raise UserError(f'"{path}" holds no run: {CONFIG} is missing')
    wins: list[Any] = ["OUTPUT_DIR", str(path), "RESUME", "", "MODEL.INIT_WEIGHTS", "", *opts]
    return load_config(config_file=str(path / CONFIG), opts=wins)


def _without_data(path: Path, cfg: Any, classnames: Sequence[str] | None) -> list[Any]:
    """Overrides that put bare class names in the place of the run's dataset."""
    templates = cfg.DATASET.TEMPLATES
    if not templates:  # a dataset need not have any
        templates = getattr(DATASET_REGISTRY.get(cfg.DATASET.NAME), "templates", ())
    if classnames is None:
        names = trained_classnames(path)
    else:
        names = list(classnames)
        _check_names(path, cfg, names)
    return [
        *("DATASET.NAME", "ClassNames", "DATASET.CLASSNAMES", names),
        *("DATASET.TEMPLATES", list(templates), "DATASET.SUBSAMPLE_CLASSES", "all"),
        *("INPUT.TRAIN_VIEWS", 0),
    ]


def _check_names(path: Path, cfg: Any, names: list[str]) -> None:
    if _learned_on(path, names):
        return  # whatever they are: two of ImageNet's classes have the same name
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f'The class name "{twice}" is given twice')
    if is_class_specific(cfg):
        raise UserError(
            f"The run in {path} has learned a prompt of its own for each of its classes (CSC), "
            "which is of no use for others; leave the class names out, or train with CSC False"
        )


def _learned_on(run_dir: Path, classnames: list[str]) -> bool:
    return (run_dir / PROMPT_FILE).is_file() and trained_classnames(run_dir) == classnames


def is_class_specific(cfg: Any) -> bool:
    """Whether a run's prompts belong to its classes, one each, and fit no others."""
    node = getattr(TRAINER_REGISTRY.get(cfg.TRAINER.NAME), "node", None)
    return node is not None and bool(cfg.TRAINER[node].get("CSC", False))


def trained_classnames(run_dir: PathLike) -> list[str]:
    """The classes that a run's prompts were learned on, by label.

    Raises:
        UserError: the run has not finished, or its method learns no prompts.
    """
    path = Path(run_dir) / PROMPT_FILE
    if not path.is_file():
        raise UserError(
            f"{path} is missing, so the classes are not known: the run has not finished, or its "
            "method learns no prompts; name the classes yourself"
        )
    names = read_prompt_metadata(path).get("classnames")
    if not isinstance(names, list) or not all(
        isinstance(n, str) and is_printable(n) for n in names
    ):
        raise UserError(f"{path} does not name its classes; name them yourself")
    return names
