"""Build the trainer of a finished run from its folder; `Classifier` and the commands use it."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dassl.config import CfgNode, load_config
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import CONFIG, build_trainer
from dassl.utils import CheckpointFolder, load_checkpoint
from dassl.utils.checkpoint_folder import number_of
from nemesis.image_list import ImageList
from nemesis.run_config import Name, build_config, dataset_settings, pairs
from safeio.checksums import file_digest
from safeio.errors import UserError
from safeio.files import PathLike
from safeio.untrusted import is_printable
from trainers.core.features.evaluation import FrozenCLIPTrainer
from trainers.core.lora_checkpoints import ADAPTER_FILE
from trainers.core.prompt_file import PROMPT_FILE, read_tensors
from trainers.core.prompt_metadata import METADATA

# Folders of the checkpoints in a run's folder.
LEARNERS = ("prompt_learner", "adapters", "key_cache")


@dataclass(frozen=True)
class LoadOptions:
    """How `load_trainer` loads a run.

    Attributes:
        epoch: number of the checkpoint; None takes the best, else the newest.
        settings: override those of the run.
        ignore_mismatch: load prompts although they were trained with other settings or classes.
        method, config, dataset: of the training, for a run without config.yaml, such as one of
            CoOp's own code; see `nemesis.train`.
    """

    epoch: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    ignore_mismatch: bool = False
    method: str | None = None
    config: Name | None = None
    dataset: Name | None = None


def load_trainer(
    run_dir: PathLike,
    options: LoadOptions = LoadOptions(),
    classnames: Sequence[str] | None = None,
    with_data: bool = False,
    dataset: Name | ImageList | None = None,
) -> FrozenCLIPTrainer:
    """Build the trainer of a run from its config.yaml and load a checkpoint.

    Args:
        run_dir: the run's folder.
        options: see `LoadOptions`.
        classnames: classes to use instead of those of the training.
        with_data: read the run's dataset. Otherwise the trainer has class names but no images,
            unless no file of the run names the classes, as in zero-shot and third-party runs.
        dataset: read this dataset instead of the run's.

    Raises:
        UserError: the folder contains no run, no checkpoint, or one that does not fit; or
            class-specific prompts were not trained for these classes.
        UserError: the backbone's weights or the dataset are not available.
    """
    path, epoch = Path(run_dir), options.epoch
    if epoch is not None and not (isinstance(epoch, int) and epoch > 0):
        raise UserError(
            f"The epoch is {epoch}, but epochs are counted from 1, as in model.pth.tar-1"
        )
    cfg = run_config(path, options, dataset)  # errors in it shall not mention the class names
    names = list(classnames) if classnames is not None else None
    if not (with_data or dataset or names):
        names = known_classnames(path, epoch)
    if names is None:
        try:
            trainer = build_trainer(cfg)
        except UserError as error:
            if with_data or dataset:
                raise
            raise UserError(
                f"{error} (this run does not record its class names, so its dataset is read; "
                "pass the class names to avoid that)"
            ) from error
    else:
        _check_names(names, path, epoch)
        trainer = build_trainer(run_config(path, options, None, _without_data(cfg, names)))
    return _with_checkpoint(trainer, path, options)


def _check_names(names: Sequence[str], path: Path, epoch: int | None) -> None:
    if not all(str(name).strip() for name in names):
        raise UserError("A class name is empty; give words such as avocado")
    twice = [name for name in names if names.count(name) > 1]
    # Some datasets, such as ImageNet, have two classes of one name.
    if twice and known_classnames(path, epoch) != names:
        raise UserError(f'The class name "{twice[0]}" is given twice; list each class once')


def _with_checkpoint(trainer: Any, path: Path, options: LoadOptions) -> FrozenCLIPTrainer:
    """Return a built trainer with the run's checkpoint."""
    loaded: FrozenCLIPTrainer = trainer
    if not isinstance(loaded, FrozenCLIPTrainer):
        raise UserError(
            f"{path}: {trainer.cfg.TRAINER.NAME} does not compare images with texts of a frozen "
            "CLIP; test it with train.py --eval-only, or choose a run of another method"
        )
    if trainer.get_model_names():
        trainer.ignore_mismatch = options.ignore_mismatch
        trainer.load_model(path, epoch=options.epoch)
    trainer.set_model_mode("eval")
    return loaded


def run_config(
    run_dir: Path,
    options: LoadOptions = LoadOptions(),
    dataset: Name | ImageList | None = None,
    without_data: Mapping[str, Any] | None = None,
) -> CfgNode:
    """Return the configuration with which a run is loaded.

    Raises:
        UserError: the folder contains no run, or a setting is invalid.
    """
    own: dict[str, Any] = {"OUTPUT_DIR": str(run_dir), "RESUME": "", "MODEL.INIT_WEIGHTS": ""}
    described = (options.method, options.config, options.dataset) != (None, None, None)
    if (run_dir / CONFIG).is_file():
        if described:
            raise UserError(
                f'"{run_dir}" has a {CONFIG} of its own, so leave out --trainer, --config-file and '
                "--dataset-config-file, and change single settings with --set KEY VALUE"
            )
        root = str(options.settings.get("DATASET.ROOT", "data"))
        file, data = dataset_settings(dataset, root)
        overrides = {**own, **data, **options.settings, **(without_data or {})}
        return load_config(str(run_dir / CONFIG), file, opts=pairs(overrides))
    if options.method and run_dir.is_dir() and not _is_model_folder(run_dir):
        overrides = {**own, **options.settings, **(without_data or {})}
        source = dataset or options.dataset
        return build_config(source, options.method, options.config, overrides=overrides)
    raise UserError(f'"{run_dir}" holds no run: {_no_run(run_dir)}')


def _is_model_folder(path: Path) -> bool:
    return any(path.glob("model*.pth.tar*"))


def learner_folder(run_dir: Path) -> Path | None:
    """Return the folder of a run's checkpoints; None if it has none."""
    return next((run_dir / name for name in LEARNERS if (run_dir / name).is_dir()), None)


def _no_run(path: Path) -> str:
    """Return why a folder is not that of a run."""
    if not path.is_dir():
        return "there is no such folder"
    if _is_model_folder(path):
        return f'it contains the checkpoints of one; give the folder above, "{path.parent}"'
    if learner_folder(path) is not None:
        return (
            f"it has checkpoints but no {CONFIG}, as CoOp's own code leaves it; say how it was "
            "trained with --trainer, --config-file and --dataset-config-file, as for train.py"
        )
    return f"{CONFIG} is missing"


def _without_data(cfg: CfgNode, names: list[str]) -> dict[str, Any]:
    """Return overrides that replace the run's dataset by class names."""
    templates = cfg.DATASET.TEMPLATES
    if not templates and cfg.DATASET.NAME:
        templates = getattr(DATASET_REGISTRY.get(cfg.DATASET.NAME), "templates", ())
    return {
        **{"DATASET.NAME": "ClassNames", "DATASET.CLASSNAMES": names},
        **{"DATASET.TEMPLATES": list(templates), "DATASET.SUBSAMPLE_CLASSES": "all"},
        **{"INPUT.TRAIN_VIEWS": 0, "DATASET.TASKS": 0},
    }


def known_classnames(run_dir: PathLike, epoch: int | None = None) -> list[str] | None:
    """Return the classes that a run's prompts were learned on, by label.

    Args:
        run_dir: the run's folder.
        epoch: number of the checkpoint; None takes the best, else the newest.

    Returns:
        The names; None if no file records them: the method learns no prompts, or the run is
        third-party.

    Raises:
        UserError: the checkpoint, prompt.safetensors or adapters.safetensors is damaged.
    """
    path, names = Path(run_dir), None
    with contextlib.suppress(_NoCheckpoint):
        metadata = load_checkpoint(_checkpoint(path, epoch)).get(METADATA)
        names = metadata.get("classnames") if isinstance(metadata, dict) else None
    for file in (PROMPT_FILE, ADAPTER_FILE):  # of an older run, or of adapters
        if names is None and (path / file).is_file():
            names = read_tensors(path / file)[1].get("classnames")
    valid = isinstance(names, list) and all(isinstance(n, str) and is_printable(n) for n in names)
    return names if valid else None


class _NoCheckpoint(UserError):
    """The requested checkpoint does not exist."""


def _checkpoint(run_dir: Path, epoch: int | None) -> Path:
    """Return the checkpoint of a run's prompts.

    Raises:
        UserError: it does not exist.
    """
    try:
        path = CheckpointFolder(learner_folder(run_dir) or run_dir / LEARNERS[0]).choose(epoch)
    except UserError as error:
        raise _NoCheckpoint(str(error)) from error
    if not path.is_file():
        raise _NoCheckpoint(f'No checkpoint at "{path}"')
    return path


def checkpoint_identity(run_dir: Path, epoch: int | None = None) -> dict[str, str]:
    """Return the path in the run's folder and the SHA-256 of the checkpoint of its prompts.

    Raises:
        UserError: it does not exist.
    """
    path = _checkpoint(run_dir, epoch)
    return {"file": path.relative_to(run_dir).as_posix(), "sha256": file_digest(path)}


def checkpoint_epochs(run_dir: Path) -> list[int]:
    """Return the numbers of the checkpoints of a run's prompts, ascending."""
    paths = CheckpointFolder(learner_folder(run_dir) or run_dir / LEARNERS[0]).numbered()
    return sorted(number for path in paths if (number := number_of(path)) is not None)
