"""Whether a run may be written into a folder, and whether it resumes what the folder holds.

One rule for train.py, Python, sweeps and runs that are trained together: what a folder holds of
another configuration is neither resumed nor replaced, unless the user asks for it.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from safeio.errors import UserError
from safeio.files import PathLike

from .run_files import CONFIG, finished_run, has_checkpoints
from .settings import Difference, comparable, differences, recorded_settings

SHOWN_KEYS = 3
ANY_SOURCE: Mapping[str, Any] = {}


class FolderState(Enum):
    """What a folder holds of the run that is to be written there."""

    EMPTY = "nothing"
    STARTED = "checkpoints"
    FINISHED = "results"


class OtherRun(UserError):
    """A folder holds a run of another configuration.

    Args:
        folder: which.
        state: what of it.
        differences: which settings; empty where the folder does not say how its run was trained.
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
            holds = f"holds checkpoints, but no readable {CONFIG} that says how they were trained"
        super().__init__(f"{folder} {holds}; choose another --output-dir or --overwrite it")

    @property
    def keys(self) -> str:
        """The first settings that differ, old -> new."""
        more = len(self.differences) - SHOWN_KEYS
        texts = [str(difference) for difference in self.differences[:SHOWN_KEYS]]
        return ", ".join(texts) + (f" and {more} more" if more > 0 else "")


def folder_state(
    folder: PathLike,
    config: Mapping[str, Any],
    source: Mapping[str, Any] | None = None,
    longer: bool = False,
) -> FolderState:
    """Say what a folder holds of a run.

    Args:
        folder: need not exist.
        config: the run's whole configuration.
        source: for the evaluation of another run's model, that run's whole configuration, or
            ANY_SOURCE.
        longer: take a run with a lower OPTIM.MAX_EPOCH for the same.

    Raises:
        OtherRun: it holds checkpoints or results of another run.
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
    """In what the runs differ whose models are tested; a run that trains tests none."""
    tested = results.get("model_dir")
    recorded = (results.get("source_run") or {}).get("config")
    if recorded is not None and source is not None:
        found = differences(comparable(recorded), comparable(source))
        return [Difference(f"--model-dir: {key}", old, new) for key, old, new in found]
    if tested or source is not None:
        return [Difference("--model-dir", tested, source and "another run")]
    return []


def resumes_in_place(cfg: Any) -> bool:
    """Whether cfg.RESUME names cfg.OUTPUT_DIR, by whatever path."""
    return bool(cfg.RESUME) and Path(cfg.RESUME).resolve() == Path(cfg.OUTPUT_DIR).resolve()


def claim_folder(cfg: Any, overwrite: bool = False, tests: bool = False) -> FolderState:
    """Refuse to write a run over another one; nothing is written or removed.

    Args:
        cfg: the configuration: OUTPUT_DIR, RESUME and what decides about the run.
        overwrite: replace what OUTPUT_DIR holds, unless RESUME names it.
        tests: the run only tests, so that it resumes nothing.

    Returns:
        BEGUN where OUTPUT_DIR holds what is to be resumed; FINISHED where RESUME names a folder in
        which the run is finished already; else EMPTY.

    Raises:
        UserError: OUTPUT_DIR holds another run, or this one finished; RESUME names a folder that
            does not exist, holds another run, or nothing to resume.
    """
    in_place = resumes_in_place(cfg)
    if cfg.RESUME:
        _check_resumed(cfg, in_place)
        if in_place and _holds_unknown(cfg.RESUME):
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


def _holds_unknown(folder: PathLike) -> bool:
    """Whether a folder holds checkpoints of settings that only the user knows, such as Dassl's."""
    return has_checkpoints(folder) and recorded_settings(folder) is None


def _check_resumed(cfg: Any, in_place: bool) -> None:
    folder = cfg.RESUME
    if not Path(folder).is_dir():
        raise UserError(f'The folder to resume from, "{folder}", does not exist')
    if _holds_unknown(folder) and finished_run(folder) is None:
        return
    try:
        state = folder_state(folder, cfg, longer=True)
    except OtherRun as other:
        raise UserError(
            f"{folder} cannot be resumed, since it holds a run of another configuration "
            f"({other.keys}); leave these settings out, or train anew without --resume"
        ) from None
    if state is FolderState.EMPTY and not in_place:
        raise UserError(f'There is nothing to resume in "{folder}": it holds no checkpoint')
    if in_place and state is FolderState.FINISHED:
        _check_not_longer(cfg)


def _check_not_longer(cfg: Any) -> None:
    """A finished run stays as it is; one that trains longer needs a folder of its own."""
    try:
        folder_state(cfg.OUTPUT_DIR, cfg)
    except OtherRun as other:
        (longer,) = other.differences
        raise UserError(
            f"{cfg.RESUME} holds a finished run of {longer.old} epochs; to train it for "
            f"{longer.new}, give another --output-dir beside --resume {cfg.RESUME}"
        ) from None


def resume_folder(cfg: Any, overwrite: bool) -> str:
    """Return the folder that a run resumes from, after `claim_folder`; "" for none.

    A run that was resumed from another folder and has saved a checkpoint resumes from its own.
    """
    own = cfg.OUTPUT_DIR if resumes_in_place(cfg) or not overwrite else ""
    if own and (has_checkpoints(own) or not cfg.RESUME):
        return own
    return cfg.RESUME


def check_tested_folder(output: PathLike, model_dir: PathLike) -> None:
    """Refuse to write a test into the folder of the run that is tested.

    Raises:
        UserError: they are the same, by whatever path.
    """
    if model_dir and Path(model_dir).resolve() == Path(output).resolve():
        raise UserError(
            f"{output} is the folder of the run that is to be tested, and a test needs one of its "
            "own; choose another --output-dir"
        )
