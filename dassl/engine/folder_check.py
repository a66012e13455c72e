"""Check whether a run may be written to a folder and whether it resumes the run in it.

train.py, Python, sweeps and batches share one rule: a run of another configuration is neither
resumed nor replaced, unless the user requests it.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from safeio.errors import UserError
from safeio.files import PathLike

from ..config import Config
from .run_files import CONFIG, finished_run, has_checkpoints
from .settings import Difference, comparable, differences, recorded_settings

LISTED_KEYS = 3
ANY_SOURCE: Mapping[str, Any] = {}


class FolderState(Enum):
    """Content of a folder in which a run is to be written."""

    EMPTY = "nothing"
    STARTED = "checkpoints"
    FINISHED = "results"


class OtherRun(UserError):
    """A folder contains a run of another configuration.

    Args:
        folder: the folder.
        state: whether it contains checkpoints or results.
        differences: the settings that differ; empty if the folder's settings are unknown.
    """

    def __init__(
        self, folder: PathLike, state: FolderState, differences: Sequence[Difference]
    ) -> None:
        self.folder = folder
        self.state = state
        self.differences = differences
        kind = "a finished run" if state is FolderState.FINISHED else "an unfinished run"
        holds = f"already holds {kind} of another configuration ({self.keys})"
        if not differences:
            holds = f"holds checkpoints, but no readable {CONFIG} with their settings"
        super().__init__(f"{folder} {holds}; choose another --output-dir or --overwrite it")

    @property
    def keys(self) -> str:
        """The first settings that differ, old -> new."""
        more = len(self.differences) - LISTED_KEYS
        texts = [str(difference) for difference in self.differences[:LISTED_KEYS]]
        return ", ".join(texts) + (f" and {more} more" if more > 0 else "")


def folder_state(
    folder: PathLike,
    config: Mapping[str, Any],
    source: Mapping[str, Any] | None = None,
    longer: bool = False,
) -> FolderState:
    """Return which files of a run a folder contains.

    Args:
        folder: the folder; it may be missing.
        config: the run's complete configuration.
        source: if the run evaluates another run's model, that run's complete configuration, or
            ANY_SOURCE.
        longer: accept a run with a lower OPTIM.MAX_EPOCH as the same run.

    Raises:
        OtherRun: the folder contains checkpoints or results of another run.
    """
    results = finished_run(folder)
    if results is None:
        if not has_checkpoints(folder):
            return FolderState.EMPTY
        state, recorded = FolderState.STARTED, recorded_settings(folder)
    else:
        state, recorded = FolderState.FINISHED, comparable(results.get("config") or {})
    if recorded is None:
        raise OtherRun(folder, state, [])
    found = differences(recorded, comparable(config), longer)
    if results is not None and source is not ANY_SOURCE:
        found += _other_source(results, source)
    if found:
        raise OtherRun(folder, state, found)
    return state


def _other_source(results: Mapping[str, Any], source: Mapping[str, Any] | None) -> list[Difference]:
    """List how the evaluated models differ; a run that trains has no `model_dir`."""
    tested = results.get("model_dir")
    recorded = (results.get("source_run") or {}).get("config")
    if recorded is not None and source is not None:
        found = differences(comparable(recorded), comparable(source))
        return [Difference(f"--model-dir: {key}", old, new) for key, old, new in found]
    if tested or source is not None:
        return [Difference("--model-dir", tested, source and "another run")]
    return []


def resumes_in_place(cfg: Config) -> bool:
    """Return whether cfg.RESUME and cfg.OUTPUT_DIR are the same folder."""
    return bool(cfg.RESUME) and Path(cfg.RESUME).resolve() == Path(cfg.OUTPUT_DIR).resolve()


def claim_folder(cfg: Config, overwrite: bool = False, tests: bool = False) -> FolderState:
    """Check that a run may be written to cfg.OUTPUT_DIR, without writing or removing files.

    Args:
        cfg: the complete configuration, including OUTPUT_DIR and RESUME.
        overwrite: replace the run in OUTPUT_DIR, unless RESUME names this folder.
        tests: the run only evaluates a model, so it never resumes.

    Returns:
        STARTED if OUTPUT_DIR contains the checkpoints to resume from; FINISHED if RESUME names
        OUTPUT_DIR and its run is finished; otherwise EMPTY.

    Raises:
        UserError: OUTPUT_DIR contains another run, or this run is finished; RESUME names a folder
            that is missing, contains another run or contains no checkpoint.
    """
    in_place = resumes_in_place(cfg)
    if cfg.RESUME and not _check_resumed(cfg, in_place) and in_place:
        return FolderState.STARTED
    if overwrite and not in_place:
        return FolderState.EMPTY
    source = ANY_SOURCE if tests else None
    state = folder_state(cfg.OUTPUT_DIR, cfg, source, longer=in_place)
    if state is FolderState.FINISHED and not in_place:
        raise UserError(
            f"{cfg.OUTPUT_DIR} already holds a finished run of this configuration; choose another "
            "--output-dir or --overwrite it"
        )
    if state is FolderState.STARTED and tests:
        raise UserError(
            f"{cfg.OUTPUT_DIR} holds the checkpoints of an unfinished training; choose another "
            "--output-dir for the test or --overwrite them"
        )
    return state


def _check_resumed(cfg: Config, in_place: bool) -> bool:
    """Return whether the settings of the run to resume are known; those of Dassl's runs are not."""
    folder = cfg.RESUME
    if not Path(folder).is_dir():
        raise UserError(f'The folder to resume from, "{folder}", does not exist')
    unknown = has_checkpoints(folder) and recorded_settings(folder) is None
    if unknown and finished_run(folder) is None:
        return False
    try:
        state = folder_state(folder, cfg, longer=True)
    except OtherRun as other:
        raise UserError(
            f"{folder} cannot be resumed, since it holds a run of another configuration "
            f"({other.keys}); remove these settings, or train anew in another --output-dir"
        ) from None
    if state is FolderState.EMPTY and not in_place:
        raise UserError(f'"{folder}" cannot be resumed: it contains no checkpoint')
    if in_place and state is FolderState.FINISHED:
        _check_not_longer(cfg)
    return not unknown


def _check_not_longer(cfg: Config) -> None:
    """Refuse to train a finished run longer in its own folder, which must not change."""
    try:
        folder_state(cfg.OUTPUT_DIR, cfg)
    except OtherRun as other:
        (longer,) = other.differences
        raise UserError(
            f"{cfg.RESUME} holds a finished run of {longer.old} epochs; to train it for "
            f"{longer.new}, pass another --output-dir together with --resume {cfg.RESUME}"
        ) from None


def resume_folder(cfg: Config, overwrite: bool) -> str:
    """Return the folder to resume from, after `claim_folder`; "" for none.

    If a run resumed from another folder has saved its own checkpoint, that one is used.
    """
    own = cfg.OUTPUT_DIR if resumes_in_place(cfg) or not overwrite else ""
    if own and (has_checkpoints(own) or not cfg.RESUME):
        return own
    return cfg.RESUME


def check_tested_folder(output: PathLike, model_dir: PathLike) -> None:
    """Check that an evaluation does not write to the folder of the evaluated run.

    Raises:
        UserError: both are the same folder.
    """
    if model_dir and Path(model_dir).resolve() == Path(output).resolve():
        raise UserError(
            f"{output} is the folder of the run to be evaluated, and an evaluation needs its own; "
            "choose another --output-dir"
        )
