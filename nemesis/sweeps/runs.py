"""Runs of a sweep: their identity, their folders and the state on disk."""

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
from safeio.locks import exclusive

LOCKS = ".locks"
_RUN_FOLDER = re.compile(r"-([0-9a-f]{10})$")


class State(Enum):
    """State of a run."""

    DONE = "done"
    RESUME = "to resume"
    TODO = "to do"


def digest_of(config: Mapping[str, Any], source: str | None = None) -> str:
    """Return a run's identity: the SHA-256 of its identifying settings.

    Args:
        config: plain dictionaries, as in results.json.
        source: for an evaluation, the identity of the run whose model is tested.
    """
    settings = identifying_settings(config)
    content: Any = settings if source is None else {"config": settings, "source": source}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        name: path of its folder below the output folder; ends in the first digits of its digest.
        output: folder of all runs.
        method: label of the method, which names the row in a table.
        dataset: of the training.
        shots: number of shots.
        config: the whole configuration, as plain values.
        digest: its identity.
        source: the run whose model this one tests; None for a training.
        point: values of the method's grid by key.
        notes: on the origin of settings, for the head of the run's log.
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
    notes: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.output / self.name

    def cfg(self) -> CfgNode:
        """Return the frozen configuration, with the run's folder."""
        whole = {**self.config, "OUTPUT_DIR": str(self.folder), "RESUME": ""}
        cfg = load_config(flag_overrides=lambda cfg: cfg.merge_tree(whole, source=self.name))
        for note in self.notes:
            cfg.add_note(note)
        return cfg


# Runs that a worker executes in one call: one run, or a batch of runs.
Task = tuple[Run, ...]


def state_of(run: Run) -> State:
    """Return the state of a run from its folder.

    Raises:
        UserError: the folder contains a run of another configuration.
    """
    source = run.source.config if run.source is not None else None
    try:
        found = folder_state(run.folder, run.config, source)
    except OtherRun as other:
        if not other.differences:  # unreadable files; the folder's name identifies this run
            return State.TODO
        raise UserError(
            f"{run.folder} holds a run of another configuration; move it away, or give the sweep "
            f"another --output-dir ({other.keys})"
        ) from None
    if found is FolderState.FINISHED:
        return State.DONE
    return State.RESUME if found is FolderState.STARTED and source is None else State.TODO


def locate(run: Run, index: Mapping[str, str] | None = None) -> Run:
    """Return the run with the folder's name if another sweep started it under another name.

    Args:
        run: with this sweep's name.
        index: result of `folders_by_digest`; None calls it.
    """
    if run.folder.is_dir():
        return run
    known = folders_by_digest(run.output) if index is None else index
    name = known.get(run.digest[:10], run.name)
    return run if name == run.name else replace(run, name=name)


def folders_by_digest(output: Path) -> dict[str, str]:
    """Return the paths of all run folders below `output` by the first digits of their digest."""
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
    """Lock a run for this process; yields False if another process holds the lock."""
    return exclusive(run.output / LOCKS / f"{run.digest[:10]}.lock")


def clean_folder(run: Run, state: State) -> None:
    """Remove files from which the run cannot resume; logs stay."""
    if not run.folder.is_dir():
        return
    for leftover in run.folder.rglob(".*.tmp"):  # of a process that was killed while writing
        leftover.unlink(missing_ok=True)
    if state is State.TODO or not _can_resume(run.folder):
        clear_run(run.folder)


def _can_resume(folder: Path) -> bool:
    """Return whether every model has an undamaged checkpoint of a common epoch."""
    models = {pointer.parent.name: pointer.parent for pointer in folder.glob(f"*/{POINTER}")}
    try:
        return not models or newest_common(models) is not None
    except (UserError, OSError, ValueError):
        return False


def newest_log(folder: Path) -> Path | None:
    """Return the log of the latest attempt; None without a log."""
    logs = sorted(folder.glob("log.txt*"), key=lambda path: path.stat().st_mtime_ns)
    return logs[-1] if logs else None


def train_seconds(run: Run) -> float:
    """Return a finished run's training time, or its share of the batch's time."""
    results = finished_run(locate(run).folder) or {}
    runs = results.get("batched") or results.get("vectorised") or 1
    return float(results.get("train_seconds") or 0) / runs
