"""A run's identity, and what its folder says about it."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from dassl.config import CfgNode, identifying_settings, load_config
from dassl.engine import clear_run, finished_run
from dassl.engine.folder_check import FolderState, OtherRun, folder_state
from dassl.utils import newest_common
from dassl.utils.checkpoint_folder import POINTER
from safeio.errors import UserError
from safeio.locks import try_exclusive

LOCKS = ".locks"
_RUN_FOLDER = re.compile(r"-([0-9a-f]{10})$")


class State(Enum):
    """What is left to do for a run."""

    DONE = "done"
    RESUME = "to resume"
    TODO = "to do"


def digest_of(config: Mapping[str, Any], source: str | None = None) -> str:
    """Return a run's identity: the SHA-256 of the settings that make it what it is.

    Args:
        config: plain dictionaries, as in results.json.
        source: for an evaluation, the identity of the run whose model is tested.
    """
    decides = identifying_settings(config)
    content: Any = decides if source is None else {"config": decides, "source": source}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        name: path of its folder below the output folder; ends in the first digits of its digest.
        output: folder of all runs.
        method: label of its row.
        dataset: which it is trained on.
        shots: number of shots.
        config: its whole configuration, as plain values.
        digest: its identity.
        source: the run whose model this one tests; None for one that trains.
        point: its method's grid: the value of each key here.
    """

    name: str
    output: Path
    method: str
    dataset: str
    shots: int
    config: dict[str, Any]
    digest: str
    source: "Run | None" = None
    point: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where it is written."""
        return self.output / self.name

    def cfg(self) -> CfgNode:
        """The frozen configuration, with its folder."""
        whole = {**self.config, "OUTPUT_DIR": str(self.folder), "RESUME": ""}
        return load_config(flag_overrides=lambda cfg: cfg.merge_tree(whole, source=self.name))


# What is given to a worker at once: a run, or several to be trained together.
Task = tuple[Run, ...]


def recorded_digest(results: Mapping[str, Any]) -> str | None:
    """The identity of a finished run, from its results; None for one of an unknown model."""
    source = results.get("source_run")
    if results.get("model_dir") and source is None:
        return None
    try:
        return digest_of(results["config"], digest_of(source["config"]) if source else None)
    except (KeyError, TypeError, AttributeError):  # no results.json of ours
        return None


def state_of(run: Run) -> State:
    """Read from a run's folder what is left to do.

    Raises:
        UserError: the folder holds a run of another configuration, which must not be lost.
    """
    source = run.source.config if run.source is not None else None
    try:
        found = folder_state(run.folder, run.config, source)
    except OtherRun as other:
        if not other.differences:  # nothing readable says it, but the folder's name does
            return State.TODO
        raise UserError(
            f"{run.folder} holds a run of another configuration; move it away, or give the sweep "
            f"another --output-dir ({other.keys})"
        ) from None
    if found is FolderState.FINISHED:
        return State.DONE
    return State.RESUME if found is FolderState.STARTED and source is None else State.TODO


def locate(run: Run, index: Mapping[str, str] | None = None) -> Run:
    """Find a run that another sweep, by another name, has begun in the same output folder.

    Args:
        run: as this sweep would name it.
        index: what `folders_by_digest` gave a moment ago; None looks again.
    """
    if run.folder.is_dir():
        return run
    known = folders_by_digest(run.output) if index is None else index
    name = known.get(run.digest[:10], run.name)
    return run if name == run.name else replace(run, name=name)


def folders_by_digest(output: Path) -> dict[str, str]:
    """First digits of the digest -> path below `output`, of every run folder that is there."""
    return dict(_walk(output, ""))


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, str]]:
    with suppress(OSError):
        for entry in sorted(folder.iterdir()):
            if entry.name.startswith(".") or not entry.is_dir():
                continue
            match = _RUN_FOLDER.search(entry.name)
            if match:
                yield match.group(1), prefix + entry.name
            else:
                yield from _walk(entry, f"{prefix}{entry.name}/")


def locked(run: Run) -> AbstractContextManager[bool]:
    """Hold a run for this process alone; False when another one has it."""
    return try_exclusive(run.output / LOCKS / f"{run.digest[:10]}.lock")


def tidy(run: Run, state: State) -> None:
    """Prepare a folder for a run: what cannot be gone on with is removed. Logs stay."""
    if not run.folder.is_dir():
        return
    for leftover in run.folder.rglob(".*.tmp"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    if state is State.TODO or not _readable(run.folder):
        clear_run(run.folder)


def _readable(folder: Path) -> bool:
    """Whether there is an undamaged file of each model to resume from."""
    models = {pointer.parent.name: pointer.parent for pointer in folder.glob(f"*/{POINTER}")}
    try:
        return not models or newest_common(models) is not None
    except (UserError, OSError, ValueError):
        return False


def newest_log(folder: Path) -> Path | None:
    """The log of the latest attempt; None without any."""
    logs = sorted(folder.glob("log.txt*"), key=lambda path: path.stat().st_mtime_ns)
    return logs[-1] if logs else None


def train_seconds(run: Run) -> float:
    """How long a finished run was trained; its share, where several were trained together."""
    results = finished_run(locate(run).folder) or {}
    return float(results.get("train_seconds") or 0) / results.get("vectorised", 1)
