"""One run from its configuration to its results, with its log."""

from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from safeio.errors import UserError
from safeio.files import prepare_output_dir

from ..data.datasets import DATASET_REGISTRY
from ..utils import setup_logger
from .build import check_trainer, learns, start_trainer
from .folder_check import FolderState, check_tested_folder, claim_folder
from .interruption import Interrupted, stopping_on_signals
from .run_files import RESUME, Traces
from .run_lock import run_folder


def carry_out(
    cfg: Any,
    *,
    train: bool = True,
    model_dir: str | None = None,
    load_epoch: int | None = None,
    overwrite: bool = False,
    ignore_mismatch: bool = False,
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

    Ctrl-C and SIGTERM stop it where it can go on from. With cfg.RESUME naming cfg.OUTPUT_DIR, a
    run that is finished there already is left alone.

    Raises:
        UserError: a setting that cannot be, another run in the way, or a process at work there.
        UserError: the backbone's weights cannot be used.
        FloatingPointError: the training diverged.
        Interrupted: Ctrl-C or SIGTERM.
    """
    check_trainer(cfg)
    DATASET_REGISTRY.get(cfg.DATASET.NAME)
    tests = model_dir is not None
    if model_dir == "" and learns(cfg):
        raise UserError(
            f"--eval-only tests what a run has learned, and {cfg.TRAINER.NAME} has to learn: name "
            "that run's folder with --model-dir"
        )
    check_tested_folder(cfg.OUTPUT_DIR, model_dir or "")
    with ExitStack() as stack:
        traces = stack.enter_context(Traces(Path(cfg.OUTPUT_DIR)))
        output = prepare_output_dir(cfg.OUTPUT_DIR)
        stack.enter_context(run_folder(output))
        stack.enter_context(stopping_on_signals())
        # The trainer asks again; here nothing has been loaded yet.
        writes = train or tests
        if writes and claim_folder(cfg, overwrite, tests) is FolderState.FINISHED:
            (output / RESUME).unlink(missing_ok=True)  # of one that was killed as it ended
            print(f"{output} holds this run, and it is finished")
            return
        with setup_logger(output) or nullcontext():
            try:
                _carry_out(cfg, train, model_dir, load_epoch, overwrite, ignore_mismatch, traces)
            except Interrupted as stop:
                print(f"Interrupted: {stop}")
                raise
            print(f"Results are in {output}")


def _carry_out(
    cfg: Any,
    train: bool,
    model_dir: str | None,
    load_epoch: int | None,
    overwrite: bool,
    ignore_mismatch: bool,
    traces: Traces,
) -> None:
    trainer = start_trainer(cfg, overwrite)
    if model_dir is None:
        trainer.check_train()
    else:
        trainer.check_evaluation()
    if model_dir is not None:
        trainer.ignore_mismatch = ignore_mismatch
        trainer.load_model(model_dir, epoch=load_epoch)
        traces.begun = True
        trainer.evaluate(model_dir)
    elif train:
        traces.begun = True
        try:
            trainer.train()
        except UserError:  # perhaps what is to be resumed is not this run's
            traces.begun = trainer.record.begun
            raise
