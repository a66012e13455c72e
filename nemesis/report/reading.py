"""Find and check the finished runs below some folders; damaged results.json files are listed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

from dassl.engine import RESULTS
from safeio.checksums import DamagedFile, read_verified_json
from safeio.errors import UserError
from safeio.untrusted import escape_control, short_repr

from .results import Run

# Required keys of results.json, with their types.
NEEDED: Mapping[str, type | tuple[type, ...]] = {
    "trainer": str,
    "dataset": str,
    "shots": int,
    "seed": int,
    "subsample_classes": str,
    "target_domains": list,
    "split": str,
    "accuracy": (int, float, NoneType),
    "config": dict,
}
# Optional keys, with their types.
OPTIONAL: Mapping[str, type | tuple[type, ...]] = {
    "backbone": (str, NoneType),
    "device": (str, NoneType),
    "epochs": (int, NoneType),
    "num_test": (int, NoneType),
    "train_views": (int, str),  # a number, or "epochs"
    **dict.fromkeys(("train_seconds", "macro_f1", "ece", "parameters"), (int, float, NoneType)),
    "batched": int,
    "vectorised": int,  # of earlier versions
    "provenance": (dict, NoneType),
    "versions": dict,
    "weights_sha256": (str, NoneType),
    "model_dir": (str, NoneType),
}
LARGEST_NUMBER = 1e15
LARGEST = 1 << 26  # bytes of a results.json
OF_SOURCE = ("trainer", "dataset", "shots", "seed", "subsample_classes", "config")


@dataclass(frozen=True)
class RunIndex:
    """The runs found below the folders.

    Attributes:
        runs: finished and tested runs: the content of results.json, its "folder", and the time
            of its last change as "finished".
        damaged: unusable files, each with the reason.
        untested: folders of finished runs that were not tested.
    """

    runs: list[Run] = field(default_factory=list)
    damaged: dict[Path, str] = field(default_factory=dict)
    untested: list[Path] = field(default_factory=list)


def read_runs(folders: Sequence[Path]) -> RunIndex:
    """Read every results.json below the folders once.

    Raises:
        UserError: a folder does not exist, or contains no finished and tested run.
    """
    index = RunIndex()
    files: dict[Path, Path] = {}  # the real file -> the path under which it was found
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; name folders that contain finished runs")
        below = sorted(folder.rglob(RESULTS))
        if not below:
            raise UserError(
                f"{folder} contains no finished run (no {RESULTS} in it or below); name output "
                "folders of train.py or a script"
            )
        for path in below:
            files.setdefault(path.resolve(), path)
    for path in files.values():
        _add(path, index)
    if not index.runs:
        reason = "; ".join(f"{path} is damaged: {why}" for path, why in index.damaged.items())
        raise UserError(
            f"Found no finished and tested run in {', '.join(map(str, folders))}"
            f"{f' ({reason})' if reason else ''}; train and test one first"
        )
    return index


def _add(path: Path, index: RunIndex) -> None:
    try:
        run = escape_control(read_verified_json(path, LARGEST))
        finished = path.stat().st_mtime
    except OSError as error:
        index.damaged[path] = f"it cannot be read ({error.strerror})"
        return
    except (DamagedFile, ValueError) as error:
        index.damaged[path] = str(error).removeprefix(f"{path} is damaged: ")
        return
    if why := _fault(run):
        index.damaged[path] = why
    elif run["status"] != "finished":
        return
    elif run["accuracy"] is None:
        index.untested.append(path.parent)
    else:
        index.runs.append({**run, "folder": path.parent, "finished": finished})


def _fault(run: Any) -> str:
    """Return why a results.json cannot be used; empty if it can."""
    if not isinstance(run, dict):
        return "it is not a JSON object"
    if "status" not in run:
        return "it has no status"
    if run["status"] != "finished":
        return ""
    return _invalid_key(run) or _invalid_source(run)


def _invalid_key(run: Mapping[str, Any]) -> str:
    for name, kind in NEEDED.items():
        if name not in run:
            return f"it has no {name}"
        if not isinstance(run[name], kind):
            return f"its {name} is {short_repr(run[name])}"
    for name, kind in OPTIONAL.items():
        if name in run and not isinstance(run[name], kind):
            return f"its {name} is {short_repr(run[name])}"
    for name, value in run.items():
        if isinstance(value, int | float) and not -LARGEST_NUMBER < value < LARGEST_NUMBER:
            return f"its {name} is {short_repr(value)}"
    return ""


def _invalid_source(run: Mapping[str, Any]) -> str:
    source = run.get("source_run") or run
    if not isinstance(source, dict) or not all(
        isinstance(source.get(name), NEEDED[name]) for name in OF_SOURCE
    ):
        return f"its source_run does not contain valid {', '.join(OF_SOURCE)}"
    if source["trainer"].endswith("Nemesis"):
        beta: Any = source["config"]
        for name in ("TRAINER", "NEMESIS", "BETA"):
            beta = beta.get(name) if isinstance(beta, dict) else None
        if not isinstance(beta, int | float):
            return f"its TRAINER.NEMESIS.BETA is {short_repr(beta)}"
    return ""
