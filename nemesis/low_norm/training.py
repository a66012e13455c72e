r"""Draw Figures 3, A2 and A3, the training of finished runs over epochs.

    python -m nemesis.low_norm.training output/food/CoOp/1shots/seed1 \
        output/food/CoOp+PAN/1shots/seed1 --rescale 0.5 --output output/training

Figure 3: test accuracy and mean norm over the epochs, one column per run, with the accuracies of
each checkpoint's prompts with one vector rescaled. Figures A2 and A3, one per run: loss, test
accuracy, each position's norm and how often PAN selected it. The runs need a checkpoint per epoch
(TRAIN.CHECKPOINT_FREQ 1). Results are stored in each run's corruption-<epoch>.json.

Exit codes: 0 success, 1 a run could not be drawn (the others are), 2 an error in the command.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import datasets  # noqa: F401  (registers the datasets)
import trainers  # noqa: F401  (registers the methods)
from dassl.utils import Parser, exit_code
from nemesis.inference.run_flags import for_each_run
from safeio.errors import UserError
from safeio.files import prepare_output_dir

from .corruption import CorruptionGrid, check_values
from .history import read_training
from .training_figures import draw_low_norm_over_epochs, draw_process

DEFAULT_OUTPUT = Path("output/training")
FIGURES = ("3", "a2")  # a2 means A2 and A3


def build_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN_DIR", help="a run, or a folder of runs")
    add("--rescale", nargs="*", type=float, default=(0.5,), metavar="FACTOR", help="default 0.5")
    add("--figures", nargs="+", choices=FIGURES, default=FIGURES, help="default both")
    add("--every", type=int, default=1, help="test the checkpoints of every n-th epoch")
    add("--root", default="", help="folder of the datasets; default that of each run")
    add("--output", type=Path, default=DEFAULT_OUTPUT, help=f"default {DEFAULT_OUTPUT}")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Test the checkpoints, draw the figures and print their paths.

    Raises:
        UserError: a flag's value is invalid.
    """
    if arguments.every < 1:
        raise UserError(f"--every is {arguments.every}, but must be at least 1")
    check_values("--rescale", arguments.rescale)
    grid = CorruptionGrid(replace=(), rescale=tuple(dict.fromkeys(arguments.rescale)))
    output = prepare_output_dir(arguments.output)
    results, errors = for_each_run(
        arguments.runs, lambda path: read_training(path, grid, arguments.every, arguments.root)
    )
    trainings, wanted = list(results.values()), arguments.figures
    paths = [draw_process(training, output) for training in trainings if "a2" in wanted]
    if trainings and "3" in wanted:
        paths.append(draw_low_norm_over_epochs(trainings, output / "figure_3.png"))
    for path in paths:
        print(f"Figure: {path} (with .pdf and .csv)")
    return 1 if errors else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
