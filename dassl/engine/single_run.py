"""One run from its configuration to its results, with its log."""

from contextlib import nullcontext
from typing import Any

from ..utils import prepare_output_dir, setup_logger
from .build import start_trainer
from .folder_check import FolderState, check_tested_folder, claim_folder
from .interruption import Interrupted, stopping_on_signals
from .run_files import RESUME
from .run_lock import run_folder


def carry_out(
    cfg: Any,
    *,
    train: bool = True,
    model_dir: str | None = None,
    load_epoch: int | None = None,
    overwrite: bool = False,
) -> None:
    """Train and test, or test what another run has learned, in cfg.OUTPUT_DIR.

    Args:
        cfg: the frozen configuration.
        train: False builds everything and trains nothing.
        model_dir: evaluate the model of that folder instead of training ("" loads none).
        load_epoch: which of its checkpoints; None takes the best, or else the newest.
        overwrite: replace what the folder holds, when the first batch or test has succeeded.

    Ctrl-C and SIGTERM stop it where it can go on from. With cfg.RESUME naming cfg.OUTPUT_DIR, a
    run that is finished there already is left alone.

    Raises:
        UserError: a setting that cannot be, another run in the way, or a process at work there.
        clip.errors.ClipError: the backbone's weights cannot be used.
        FloatingPointError: the training diverged.
        Interrupted: Ctrl-C or SIGTERM.
    """
    tests = model_dir is not None
    check_tested_folder(cfg.OUTPUT_DIR, model_dir or "")
    output = prepare_output_dir(cfg.OUTPUT_DIR)
    with run_folder(output), stopping_on_signals():
        # The trainer asks again; here nothing has been loaded yet.
        writes = train or tests
        if writes and claim_folder(cfg, overwrite, tests) is FolderState.FINISHED:
            (output / RESUME).unlink(missing_ok=True)  # of one that was killed as it ended
            print(f"{output} holds this run, and it is finished")
            return
        with setup_logger(output) or nullcontext():
            try:
                _carry_out(cfg, train, model_dir, load_epoch, overwrite)
            except Interrupted as stop:
                print(f"Interrupted: {stop}")
                raise
            print(f"Results are in {output}")


def _carry_out(
    cfg: Any, train: bool, model_dir: str | None, load_epoch: int | None, overwrite: bool
) -> None:
    trainer = start_trainer(cfg, overwrite)
    if model_dir is not None:
        trainer.load_model(model_dir, epoch=load_epoch)
        trainer.evaluate(model_dir)
    elif train:
        trainer.train()
