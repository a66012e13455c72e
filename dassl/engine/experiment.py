"""One run from its configuration to its results: the only path there is.

train.py, the workers of a sweep, run groups and Python users all call `run_experiment`.
"""

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from safeio.errors import UserError
from safeio.files import prepare_output_dir

from ..data.datasets import DATASET_REGISTRY
from ..utils import setup_logger
from .build import build_and_seed, check_trainer, learns
from .folder_check import FolderState, check_tested_folder, claim_folder
from .interruption import Interrupted, stopping_on_signals
from .run_files import RESUME, Traces
from .run_lock import run_folder


def run_experiment(
    cfg: Any,
    *,
    train: bool = True,
    model_dir: str | None = None,
    load_epoch: int | None = None,
    overwrite: bool = False,
    ignore_mismatch: bool = False,
    on_trainer: Callable[[Any], None] | None = None,
) -> None:
    """Train and test, or test what another run has learned, in cfg.OUTPUT_DIR.

    Args:
        cfg: the frozen configuration.
        train: False builds everything and trains nothing.
        model_dir: evaluate the model of that folder instead of training; "" loads none, for a
            trainer that does not learn.
        load_epoch: which of its checkpoints; None takes the best, or else the newest.
        overwrite: replace what the folder holds, when the first batch or test has succeeded.
        ignore_mismatch: evaluate the model of `model_dir` also where it does not fit, as far as the
            trainer looks at that.
        on_trainer: gets the trainer when it is built and checked, before it trains or tests.

    Ctrl-C and SIGTERM save the run and stop it. With cfg.RESUME naming cfg.OUTPUT_DIR, a run that
    is finished there already is left alone.

    Raises:
        UserError: a setting that cannot be, another run in the way, or a process at work there.
        UserError: the backbone's weights cannot be used.
        FloatingPointError: the training diverged.
        Interrupted: Ctrl-C or SIGTERM.
    """
    tests = model_dir is not None
    _check(cfg, model_dir)
    with ExitStack() as stack:
        traces = stack.enter_context(Traces(Path(cfg.OUTPUT_DIR)))
        output = prepare_output_dir(cfg.OUTPUT_DIR)
        stack.enter_context(run_folder(output))
        stack.enter_context(stopping_on_signals())
        # A trainer does this again, for those who build one themselves; here it takes no time.
        writes = train or tests
        if writes and claim_folder(cfg, overwrite, tests) is FolderState.FINISHED:
            (output / RESUME).unlink(missing_ok=True)  # of one that was killed as it ended
            print(f"{output} holds this run, and it is finished")
            return
        stack.enter_context(setup_logger(output) or nullcontext())
        try:
            trainer = build_and_seed(cfg, overwrite)
            (trainer.check_evaluation if tests else trainer.check_train)()
            if on_trainer is not None:
                on_trainer(trainer)
            if model_dir is not None:
                trainer.ignore_mismatch = ignore_mismatch
                trainer.load_model(model_dir, epoch=load_epoch)
                traces.begun = True
                trainer.evaluate(model_dir)
            elif train:
                _train(trainer, traces)
        except Interrupted as stop:
            print(f"Interrupted: {stop}")
            raise
        print(f"Results are in {output}")


def _check(cfg: Any, model_dir: str | None) -> None:
    """Refuse what can be refused before anything is loaded or written."""
    check_trainer(cfg)
    DATASET_REGISTRY.get(cfg.DATASET.NAME)
    if model_dir == "" and learns(cfg):
        raise UserError(
            f"--eval-only tests what a run has learned, and {cfg.TRAINER.NAME} has to learn: name "
            "that run's folder with --model-dir"
        )
    check_tested_folder(cfg.OUTPUT_DIR, model_dir or "")


def _train(trainer: Any, traces: Traces) -> None:
    traces.begun = True
    try:
        trainer.train()
    except UserError:  # perhaps what is to be resumed is not this run's
        traces.begun = trainer.record.begun
        raise
