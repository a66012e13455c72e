"""Config files by name: the file and settings that a name such as rn50_ep50_ctxv1 means.

A missing file configs/trainers/METHOD/NAME.yaml stands for the file NAME.yaml of a class from which
METHOD inherits (CoOp for CoOpNemesis), else of configs/trainers/; mini_vit... without a file is
mini... with the other bundled CLIP. A NAME without such a file is a base and words, separated by
underscores. The base is such a file, or one of OpenAI's backbones on
top of the nearest recipe.yaml.
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from clip.config import ARCHITECTURES
from dassl.config import CONFIG_RULES
from dassl.config.defaults import plain_defaults
from dassl.config.node import read_yaml_layers, short_path
from dassl.engine import TRAINER_REGISTRY
from dassl.utils.names import check_availability, choices
from safeio.errors import UserError

CONFIGS = (Path(__file__).parents[1] / "configs").resolve()
TRAINERS = CONFIGS / "trainers"
# By their spelling in names of files, such as vit_b16.
BACKBONES = {re.sub(r"\W", "_", name.lower().replace("/", "")): name for name in ARCHITECTURES}
MINI, MINI_VIT = "mini", "mini_vit"  # the bundled CLIPs, which share their files
NUMBER = "N"  # of a word's spelling
# Settings of the words; a key without a group is the method's own. Later words override earlier.
WORDS: dict[str, dict[str, Any]] = {
    "epN": {"OPTIM.MAX_EPOCH": NUMBER},
    "batchN": {"DATALOADER.TRAIN_X.BATCH_SIZE": NUMBER},
    "cN": {"N_CTX": NUMBER, "CTX_INIT": ""},
    "ctxN": {"N_CTX": NUMBER, "CTX_INIT": ""},
    "nctxN": {"N_CTX": NUMBER, "CTX_INIT": ""},
    "ctxv1": {"CTX_INIT": "a photo of a"},
    "csc": {"CSC": True},
    # CoOp's rn50_val, with which its linear probe reads features; it sets no optimiser.
    "val": {
        "DATALOADER.TRAIN_X.BATCH_SIZE": 200,
        "DATALOADER.TEST.BATCH_SIZE": 200,
        "TEST.SPLIT": "val",
    },
}


def config_file(folder: str, name: str) -> str:
    """Return the path of a config file by its name; the path of a .yaml file is returned unchanged.

    Args:
        folder: below configs/, such as "datasets" or "trainers/CoOp".
        name: such as rn50_ep50, or a dataset's DATASET.NAME. Names of methods need no file, so
            reading the path checks them.

    Raises:
        UserError: no dataset has this name.
    """
    if name.endswith((".yaml", ".yml")):
        return name
    if folder == "datasets":
        stems = dataset_stems()
        name = stems.get(name, name)
        check_availability(name, [*stems.values(), *stems])
    return str(CONFIGS / folder / f"{name}.yaml")


@cache
def dataset_stems() -> dict[str, str]:
    """Return DATASET.NAME -> stem of its file in configs/datasets."""
    files = sorted((CONFIGS / "datasets").glob("*.yaml"))
    return {read_yaml_layers(path)[-1][1]["DATASET"]["NAME"]: path.stem for path in files}


def names_of(trainer: str) -> list[str]:
    """Return the names that config files of a trainer begin with: files and backbones.

    Raises:
        UserError: no trainer has this name.
    """
    return _bases([*(TRAINERS / name for name in _registered_classes(trainer)), TRAINERS])


def resolve_name(path: Path) -> dict[str, Any] | None:
    """Return the content that a missing file would have; it has a base file and dotted keys.

    Args:
        path: the missing file. None is returned if it is not in configs/trainers/ or a METHOD/
            below it.

    Raises:
        UserError: METHOD is unknown, or the name has an unknown base or word.
    """
    folder = path.resolve().parent
    if TRAINERS not in (folder, folder.parent) or path.suffix != ".yaml":
        return None
    try:
        methods = [] if folder == TRAINERS else _registered_classes(folder.name)
        content, words = _split(path.stem, [*(TRAINERS / name for name in methods), TRAINERS])
        known = _words_of(methods)
        for word in words:
            content |= _settings(word, known)
    except UserError as error:
        raise UserError(f"The config file {short_path(path)} does not exist: {error}") from error
    return content


def _registered_classes(trainer: str) -> list[str]:
    """Return the names of a trainer and of the trainers that it inherits from."""
    mro = getattr(TRAINER_REGISTRY.get(trainer), "__mro__", ())
    return [cls.__name__ for cls in mro if cls.__name__ in TRAINER_REGISTRY]


def _split(name: str, folders: Sequence[Path]) -> tuple[dict[str, Any], list[str]]:
    """Return the content for the longest base of a name, and the words that follow."""
    parts = name.split("_")
    for length in range(len(parts), 0, -1):
        base, words = "_".join(parts[:length]), parts[length:]
        content = _file_content(base, folders)
        if content:
            return content, words
        if base in BACKBONES:
            return _backbone_settings(BACKBONES[base], folders), words
    available = _bases(folders)
    raise UserError(
        f'"{name}" starts with the name of no file or backbone{choices(name, available)}'
    )


def _file_content(name: str, folders: Sequence[Path]) -> dict[str, Any] | None:
    """Return the content that extends the first folder's file of this name."""
    for folder in folders:
        if (path := folder / f"{name}.yaml").is_file():
            return {"_BASE_": str(path)}
        mini = folder / f"{name.replace(MINI_VIT, MINI, 1)}.yaml"
        if name.startswith(MINI_VIT) and mini.is_file():
            return {"_BASE_": str(mini), "MODEL.BACKBONE.NAME": MINI_VIT}
    return None


def _bases(folders: Sequence[Path]) -> list[str]:
    files = {path.stem for folder in folders for path in folder.glob("*.yaml")}
    twins = {name.replace(MINI, MINI_VIT, 1) for name in files if name.startswith(MINI)}
    twins = {name for name in twins if not name.startswith(f"{MINI_VIT}_vit")}
    return [*BACKBONES, *sorted((files | twins) - {"recipe"})]


def _backbone_settings(name: str, folders: Sequence[Path]) -> dict[str, Any]:
    content = {**(_file_content("recipe", folders) or {}), "MODEL.BACKBONE.NAME": name}
    side = ARCHITECTURES[name].image_resolution
    return content if side == 224 else {**content, "INPUT.SIZE": (side, side)}


def _words_of(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the words whose keys a method has, with complete keys.

    Args:
        methods: see `_registered_classes`.
    """
    groups = plain_defaults()["TRAINER"]
    own: dict[str, str] = {}
    for group in map(str.upper, reversed(methods)):
        own |= {key: f"TRAINER.{group}.{key}" for key in groups.get(group, {})}
    return {
        word: {own.get(key, key): value for key, value in settings.items()}
        for word, settings in WORDS.items()
        if all("." in key or key in own for key in settings)
    }


def _settings(word: str, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    for spelling, settings in known.items():
        match = re.fullmatch(spelling.replace(NUMBER, r"(\d{1,6})"), word)
        if match:
            number = int(match[1]) if match.groups() else 0
            return {key: number if value == NUMBER else value for key, value in settings.items()}
    raise UserError(f'the word "{word}" of its name is unknown{choices(word, list(known))}')


CONFIG_RULES.append(resolve_name)
