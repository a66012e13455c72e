"""Configuration of a run by names: a method, its config, a dataset."""

import os
from collections.abc import Mapping
from typing import Any

import datasets  # noqa: F401  (registers the datasets)
from dassl.config import CfgNode, load_config
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from safeio.errors import UserError
from trainers.config_names import config_file, dataset_stems

from .image_list import ImageList

Name = str | os.PathLike[str]


def build_config(
    dataset: Name | ImageList | None,
    method: str | None = None,
    config: Name | None = None,
    settings: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> CfgNode:
    """Return the frozen configuration of a run.

    Args:
        dataset: stem of a file in configs/datasets, a registered name, a YAML file or a list of
            images.
        method: a registered name.
        config: name as in configs/README.md, or a YAML file.
        settings: of the caller, such as the data root; they override the files.
        overrides: of the user; they override all others.

    Raises:
        UserError: a name, a key or a value is wrong.
    """
    flags = {**({"TRAINER.NAME": method} if method else {}), **(settings or {})}
    file, own = dataset_settings(dataset, flags.get("DATASET.ROOT", "data"))
    method_file = None
    if method is not None:
        TRAINER_REGISTRY.get(method)
        if config is not None:
            method_file = config_file(f"trainers/{method}", os.fspath(config))
    return load_config(file, method_file, flags | own, pairs(overrides))


def pairs(settings: Mapping[str, Any] | None) -> list[Any]:
    """Return {key: value} as [key, value, ...].

    Raises:
        UserError: the settings are not a mapping from strings.
    """
    if not isinstance(settings or {}, Mapping) or not all(
        isinstance(k, str) for k in settings or ()
    ):
        raise UserError('settings maps keys to values, such as {"DATASET.NUM_SHOTS": 4}')
    return [part for item in (settings or {}).items() for part in item]


def dataset_settings(
    dataset: Name | ImageList | None, root: str
) -> tuple[str | None, dict[str, Any]]:
    """Return the dataset's configuration file, if any, and its settings.

    Raises:
        UserError: the dataset is unknown.
    """
    if dataset is None:
        return None, {}
    if isinstance(dataset, ImageList):
        return None, {"DATASET.NAME": "Folder", "DATASET.FOLDER.PATH": str(dataset.save(root))}
    if not isinstance(dataset, str | os.PathLike):
        raise UserError(
            f"dataset is of type {type(dataset).__name__}, but must be a name, a YAML file or a "
            "nemesis.ImageList"
        )
    name = os.fspath(dataset)
    if name in DATASET_REGISTRY and name not in dataset_stems():
        return None, {"DATASET.NAME": name}
    return config_file("datasets", name), {}
