"""Flags that select or replace parts of a sweep file: --datasets, --shots, --methods, ..."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dassl.engine import TRAINER_REGISTRY
from dassl.utils import check_availability
from safeio.errors import UserError


@dataclass(frozen=True)
class Selection:
    """Values that replace those of a sweep file; None or empty keeps the file's.

    Attributes:
        lists: datasets, shots and seeds; a method with its own list keeps it.
        config: of all methods; drops the file's cases, which complete its own config.
        methods: labels of the file's methods, or [LABEL=]TRAINER for others.
        grid: values by key, for the methods whose grid has this key.
        targets: datasets that every trained run is tested on, instead of the file's evaluations.
        domains: of the training's dataset, likewise.
    """

    lists: Mapping[str, Sequence[Any] | None] = field(default_factory=dict)
    config: str | None = None
    methods: Sequence[str] = ()
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    targets: Sequence[str] | None = None
    domains: Sequence[str] | None = None

    def apply(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the changed content of a sweep file.

        Raises:
            UserError: a method is unknown, or no method has a key of `grid`.
        """
        changed = {**content, **{key: [*v] for key, v in self.lists.items() if v is not None}}
        if self.config is not None:
            changed |= {"config": self.config, "cases": []}
        if self.targets is not None or self.domains is not None:
            changed["evaluate"] = [
                *([{"datasets": [*self.targets]}] if self.targets else []),
                *({"name": d, "set": {"DATASET.TARGET_DOMAINS": [d]}} for d in self.domains or ()),
            ]
        methods = content.get("methods")
        if isinstance(methods, Mapping):  # the reader reports other values
            named = dict(_named(name, methods) for name in self.methods) or methods
            changed["methods"] = self._with_grid(named)
        return changed

    def _with_grid(self, methods: Mapping[str, Any]) -> dict[str, Any]:
        changed, left = dict(methods), set(self.grid)
        for label, entry in methods.items():
            axes = entry.get("grid") if isinstance(entry, Mapping) else None
            if isinstance(axes, Mapping):
                own = {key: list(self.grid[key]) for key in axes if key in self.grid}
                changed[label] = {**entry, "grid": {**axes, **own}}
                left -= own.keys()
        for key in left:
            raise UserError(f"--grid {key}: no method of this sweep has a grid of {key}")
        return changed


def _named(name: str, methods: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the label and the entry of a method, given its label or [LABEL=]TRAINER."""
    if name in methods:
        return name, methods[name]
    label, _, trainer = name.rpartition("=")
    check_availability(
        trainer, list(dict.fromkeys([*methods, *TRAINER_REGISTRY.registered_names()]))
    )
    if trainer in methods:
        return label, {"trainer": trainer, **(methods[trainer] or {})}
    # Zero-shot CLIP learns nothing, so that shots and seeds do not matter.
    fixed = {"shots": [0], "seeds": [1]} if trainer.startswith("Zeroshot") else {}
    return label or trainer, {"trainer": trainer, **fixed}


def add_selection_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `selection_of` reads."""
    add = parser.add_argument_group("parts of the sweep file to replace").add_argument
    add("--datasets", nargs="+", metavar="DATASET", help="names of configs/datasets, or paths")
    add("--shots", nargs="+", type=int, metavar="N", help="numbers of shots")
    add("--seeds", nargs="+", type=int, metavar="N", help="seeds")
    add("--methods", nargs="+", default=[], metavar="METHOD", help="labels, or [LABEL=]TRAINER")
    add("--config", metavar="NAME", help="name of a configuration; drops the file's cases")
    text = "values of a setting that a method's grid has"
    add("--grid", nargs="+", action="append", default=[], metavar=("KEY", "VALUE"), help=text)
    text = "test every run on these datasets, instead of the file's evaluations"
    add("--targets", nargs="*", metavar="DATASET", help=text)
    add("--domains", nargs="*", metavar="DOMAIN", help="likewise, on domains of its own dataset")


def selection_of(arguments: argparse.Namespace) -> Selection:
    """Return the selection of parsed flags.

    Raises:
        UserError: --grid has no value.
    """
    for key, *values in arguments.grid:
        if not values:
            raise UserError(f"--grid {key} has no value; write --grid KEY VALUE ...")
    return Selection(
        {key: getattr(arguments, key) for key in ("datasets", "shots", "seeds")},
        arguments.config,
        arguments.methods,
        {key: values for key, *values in arguments.grid},
        arguments.targets,
        arguments.domains,
    )
