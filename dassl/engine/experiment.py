"""Run one experiment from its configuration to its results.

train.py, the workers of a sweep, batches and Python users call `run_experiment`.
"""

from collections.abc import Callable, Generator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from safeio.errors import UserError
from safeio.files import prepare_output_dir

from ..config import Config
from ..data.datasets import DATASET_REGISTRY
from ..utils import setup_logger
from .build import build_and_seed, check_trainer, learns
from .folder_check import FolderState, check_tested_folder, claim_folder
from .interruption import Interrupted, stopping_on_signals
from .run_files import RESUME, startup_cleanup
from .run_lock import lock_folder


def run_experiment(cfg: Config, **arguments: Any) -> None:
    """Train and test, or evaluate the model of another run, and write results to cfg.OUTPUT_DIR.

    See `experiment` for the arguments and exceptions.
    """
    for _ in experiment(cfg, **arguments):
        pass


def experiment(
    cfg: Config,
    *,
    train: bool = True,
    model_dir: str | None = None,
    load_epoch: int | None = None,
    overwrite: bool = False,
    ignore_mismatch: bool = False,
    on_trainer: Callable[[Any], None] | None = None,
) -> Generator[None, None, None]:
    """Run an experiment; yield where an epoch of a trainer with `shared_epochs` must be run.

    Args:
        cfg: the frozen configuration.
        train: False builds the trainer without training it.
        model_dir: evaluate the model of this run's folder instead of training; "" loads no model,
            for a zero-shot trainer.
        load_epoch: number of the checkpoint; None loads the best or, without one, the newest.
        overwrite: replace the run in the folder after the first successful batch or test.
        ignore_mismatch: evaluate the model of `model_dir` even if the trainer finds a mismatch.
        on_trainer: called with the trainer after it is built and checked.

    Ctrl-C and SIGTERM save the run and stop it. If cfg.RESUME is cfg.OUTPUT_DIR and the run in it
    is finished, nothing is done.

    Raises:
        UserError: a setting or the weights of the backbone are not valid, the folder contains
            another run, or another process uses it.
        FloatingPointError: the training diverged.
        Interrupted: Ctrl-C or SIGTERM.
    """
    tests = model_dir is not None
    _check(cfg, model_dir)
    with ExitStack() as stack:
        startup = stack.enter_context(startup_cleanup(Path(cfg.OUTPUT_DIR)))
        output = prepare_output_dir(cfg.OUTPUT_DIR)
        stack.enter_context(lock_folder(output))
        stack.enter_context(stopping_on_signals())
        # The trainer checks this, too, but building it takes time.
        writes = train or tests
        if writes and claim_folder(cfg, overwrite, tests) is FolderState.FINISHED:
            (output / RESUME).unlink(missing_ok=True)  # left by a kill after the results
            print(f"This run is already finished: {output}")
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
                startup.started = True
                trainer.evaluate(model_dir)
            elif train:
                yield from _train(trainer, startup)
        except Interrupted as stop:
            print(f"Interrupted: {stop}")
            raise
        print(f"Results are in {output}" if writes else f"Built without training; log: {output}")


def _check(cfg: Config, model_dir: str | None) -> None:
    """Check everything that can be checked before loading or writing files."""
    check_trainer(cfg)
    DATASET_REGISTRY.get(cfg.DATASET.NAME)
    if model_dir == "" and learns(cfg):
        raise UserError(
            f"--eval-only needs a trained model for {cfg.TRAINER.NAME}; pass the folder of its run "
            "with --model-dir"
        )
    check_tested_folder(cfg.OUTPUT_DIR, model_dir or "")


def _train(trainer: Any, startup: SimpleNamespace) -> Generator[None, None, None]:
    startup.started = True
    try:
        if getattr(trainer, "shared_epochs", False):
            yield from trainer.training()
        else:
            trainer.train()
    except UserError:  # for example, the checkpoint to resume is of another run
        startup.started = trainer.record.started
        raise
