"""Lists of the registered methods and datasets, from their classes."""

import inspect
import os
import sys
from pathlib import Path
from typing import Any

from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from safeio.files import expanded
from trainers.config_names import dataset_stems, names_of

from .run_config import Name

Facts = dict[str, Any]


def methods() -> list[Facts]:
    """Return the registered methods, ready for a table.

    Returns:
        One {"name", "summary", "paper", "prompts", "towers", "nemesis", "configs"} per method.
        summary is the first line of the class's docstring; paper, prompts and towers are class
        attributes, which a Nemesis variant inherits; nemesis is what its norm losses act on, ""
        for a method without them; configs are names without words (configs/README.md).
    """
    return [_method(name, trainer) for name, trainer in TRAINER_REGISTRY.items()]


def _method(name: str, trainer: Any) -> Facts:
    has_nemesis = name.endswith("Nemesis") and hasattr(trainer, "normalizes")
    return {
        "name": name,
        "summary": _first_line(trainer),
        **{key: getattr(trainer, key, "") for key in ("paper", "prompts", "towers")},
        "nemesis": trainer.normalizes if has_nemesis else "",
        "configs": names_of(name),
    }


def datasets(root: Name = "data") -> list[Facts]:
    """Return the registered datasets and which of their files are below a data root.

    Args:
        root: folder of the datasets; it may be missing.

    Returns:
        One {"name", "dataset", "summary", "domains", "folder", "state", "missing"} per dataset.
        name is the stem in configs/datasets, dataset the registered name. state is "complete",
        "missing" (some files are), "generated" (made at first use, not yet on the disk) or "own"
        (images that DATASET.FOLDER.PATH names). missing lists the required files.
    """
    stems = dataset_stems()
    found: list[tuple[str, Any]] = [*DATASET_REGISTRY.items()]
    named = [(stems.get(name, name), name, one) for name, one in found if name != "ClassNames"]
    base = Path(expanded(os.fspath(root)))
    facts = [_dataset(stem, name, one, base) for stem, name, one in named]
    bundled = {stem for stem, _, one in named if getattr(one, "generated", False)}
    return sorted(facts, key=lambda f: (f["state"] == "own", f["name"] not in bundled, f["name"]))


def _dataset(stem: str, name: str, dataset: Any, root: Path) -> Facts:
    folder = getattr(dataset, "dataset_dir", "")
    missing = [
        source.path
        for source in getattr(dataset, "sources", ())
        if not source.optional and source.is_wanted(root / folder)
    ]
    if not folder:
        state = "own"
    elif getattr(dataset, "generated", False):
        state = "complete" if (root / folder).is_dir() else "generated"
    else:
        missing = missing or ([] if (root / folder).is_dir() else [folder])
        state = "missing" if missing else "complete"
    return {
        "name": stem,
        "dataset": name,
        "summary": _first_line(dataset),
        "domains": list(getattr(dataset, "domains", ())),
        "folder": str(root / folder) if folder else "",
        "state": state,
        "missing": missing,
    }


def _first_line(found: Any) -> str:
    """Return the first line of a class's docstring, or of its module's if it is alone there."""
    module = sys.modules.get(found.__module__)
    registered = [*DATASET_REGISTRY.items(), *TRAINER_REGISTRY.items()]
    alone = sum(other.__module__ == found.__module__ for _, other in registered) == 1
    text = (module and inspect.getdoc(module)) if alone else vars(found).get("__doc__")
    return (text or "").strip().partition("\n")[0]
