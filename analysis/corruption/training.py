r"""Training watched through its checkpoints: Figure 3 and Figures A2 and A3 of finished runs.

    python -m analysis.corruption.training output/food/CoOp/1shots/seed1 \
        output/food/CoOp+PAN/1shots/seed1 --rescale 0.5 --output output/training

Figure 3: test accuracy and mean norm over the epochs, one column a run, with the accuracies of the
prompts of each checkpoint that have one vector rescaled. Figures A2 and A3, one a run: loss, test
accuracy, each position's norm and how often PAN selected it. The runs need a checkpoint per epoch
(TRAIN.CHECKPOINT_FREQ 1). What is tested is stored in each run's corruption-<epoch>.json.

Exit codes: 0 done, 1 a run could not be drawn (the others were), 2 a mistake in the command.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import datasets  # noqa: F401  (registers the datasets)
import trainers  # noqa: F401  (registers the methods)
from analysis.run_flags import for_each_run
from dassl.utils import Parser, exit_code
from safeio.errors import UserError
from safeio.files import prepare_output_dir

from .corruption import CorruptionGrid, check_values
from .history import read_training
from .training_figures import draw_low_norm_over_epochs, draw_process

DEFAULT_OUTPUT = Path("output/training")
FIGURES = ("3", "a2")  # a2 stands for A2 and A3


def build_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN_DIR", help="a run, or a folder with runs below")
    add("--rescale", nargs="*", type=float, default=(0.5,), metavar="FACTOR", help="default 0.5")
    add("--figures", nargs="+", choices=FIGURES, default=FIGURES, help="default both")
    add("--every", type=int, default=1, help="test the checkpoint of every so many epochs")
    add("--root", default="", help="folder of the datasets; default the runs' own")
    add("--output", type=Path, default=DEFAULT_OUTPUT, help=f"default {DEFAULT_OUTPUT}")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Study the checkpoints, draw, and say where the figures are.

    Raises:
        UserError: a value that cannot be.
    """
    if arguments.every < 1:
        raise UserError(f"--every is {arguments.every}, but must be at least 1")
    check_values("--rescale", arguments.rescale)
    grid = CorruptionGrid(replace=(), rescale=tuple(dict.fromkeys(arguments.rescale)))
    output = prepare_output_dir(arguments.output)
    found, failed = for_each_run(
        arguments.runs, lambda path: read_training(path, grid, arguments.every, arguments.root)
    )
    trainings, wanted = list(found.values()), arguments.figures
    paths = [draw_process(training, output) for training in trainings if "a2" in wanted]
    if trainings and "3" in wanted:
        paths.append(draw_low_norm_over_epochs(trainings, output / "figure_3.png"))
    for path in paths:
        print(f"Figure: {path} (with .pdf and .csv)")
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
