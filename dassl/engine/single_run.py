"""One run from its configuration to its results, with its log."""

from contextlib import nullcontext
from typing import Any

from ..utils import UserError, prepare_output_dir, setup_logger
from .build import start_trainer
from .run_record import clear_run, finished_run


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
        overwrite: replace a finished run.

    Raises:
        UserError: a setting that cannot be, or a finished run in the way.
        clip.errors.ClipError: the backbone's weights cannot be used.
        FloatingPointError: the training diverged.
    """
    output = prepare_output_dir(cfg.OUTPUT_DIR)
    if finished_run(output) and not overwrite:
        raise UserError(
            f"{output} already holds a finished run; choose another --output-dir or --overwrite it."
        )
    with setup_logger(output) or nullcontext():
        trainer = start_trainer(cfg)
        trains = train and model_dir is None
        if trains:
            trainer.check_train()
        if overwrite:  # only now: a mistake in the command costs nothing
            clear_run(output)
        if model_dir is not None:
            trainer.load_model(model_dir, epoch=load_epoch)
            trainer.evaluate(model_dir)
        elif trains:
            trainer.train()
        print(f"Results are in {output}")
