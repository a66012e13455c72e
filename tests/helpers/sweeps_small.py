"""Tiny sweeps on the bundled benchmark: one epoch, one shot, one kept view, half the classes."""

from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file
from torch import Tensor

from nemesis.sweeps.command import resolve_sweep
from nemesis.sweeps.runs import Run
from tests.helpers.runs import results

SETTINGS: dict[str, Any] = {
    **{"OPTIM.MAX_EPOCH": 1, "INPUT.TRAIN_VIEWS": 1},
    **{"TEST.SPLIT": "val", "DATASET.SUBSAMPLE_CLASSES": "base"},
}
HERE = ("--workers", "0")
PUN = {"trainer": "CoOpNemesis", "set": {"TRAINER.NEMESIS.BETA": 1.0}}


def write(
    folder: Path, data_root: Path, settings: dict[str, Any] | None = None, **keys: Any
) -> str:
    """Write a sweep file whose runs go to folder/runs; returns its path."""
    own = {**SETTINGS, "DATASET.ROOT": str(data_root), **(settings or {})}
    content: dict[str, Any] = {
        "output": str(folder / "runs"),
        "datasets": ["emoji_activities"],
        "shots": [1],
        "seeds": [1],
        "config": "mini",
        "methods": {"CoOp": None},
        "set": own,
        **keys,
    }
    path = folder / f"sweep{len(list(folder.glob('*.yaml')))}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


def runs_in(path: str) -> list[Run]:
    """The runs of a sweep file, with their folders."""
    return resolve_sweep(path).runs


def learned(run: Run) -> tuple[Tensor, float]:
    """A finished run's prompt vectors and its accuracy."""
    return load_file(run.folder / "prompt.safetensors")["ctx"], results(run.folder)["accuracy"]
