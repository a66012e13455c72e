r"""Measure loss and accuracy along the line between the adapters of two runs.

    python -m nemesis interpolate output/lora/seed1 output/lora/seed2
    python -m nemesis interpolate output/lora/seed1 output/lora/seed2 --set TEST.SPLIT val

Two curves are measured on the test images of the first run: `factors` interpolates A and B each,
`delta` their products B A. The barrier is the largest rise of the loss above the straight line
between both ends. Writes interpolate.md (.csv, .tex) and interpolate_figure.png (.pdf, .csv) to
--output-dir.

Exit codes: 0 done, 2 an error in the command.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dassl.utils import Parser, exit_code
from nemesis.adapters.adapter_runs import check_alike
from nemesis.adapters.figures import draw_interpolation
from nemesis.adapters.scoring import run_scorer
from nemesis.adapters.studies import interpolation
from safeio.errors import UserError
from safeio.files import prepare_output_dir

from .run_flags import add_load_flags, load_options, print_figures, read_adapters

DEFAULT_OUTPUT = Path("output/interpolate")


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(__doc__, "interpolate")
    add = parser.add_argument
    add("runs", nargs=2, type=Path, metavar="RUN_DIR", help="folders of two finished runs")
    add("--points", type=int, default=11, metavar="N", help="solutions on the line; default 11")
    add("--output-dir", type=Path, default=DEFAULT_OUTPUT, help=f"default {DEFAULT_OUTPUT}")
    add_load_flags(parser)
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Write the table and the figure.

    Raises:
        UserError: the adapters do not fit, the datasets differ, or there are too few points.
    """
    if arguments.points < 3:
        raise UserError(f"--points is {arguments.points}, but must be at least 3")
    first, second = read_adapters(arguments)
    check_alike([first, second], same_rank=True)
    names = [one.cfg.DATASET.NAME for one in (first, second)]
    if names[0] != names[1]:
        raise UserError(
            f"The runs are of {names[0]} and {names[1]}, but a line between two runs is measured "
            "on one task; choose runs of the same dataset"
        )
    output = prepare_output_dir(arguments.output_dir)
    scorer = run_scorer(first.path, **load_options(arguments))
    found = interpolation(first, second, scorer, arguments.points)
    table = found.table()
    table.write(output)
    print(table.markdown())
    print_figures(draw_interpolation(found, output / "interpolate_figure.png"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(run, build_parser(), argv)
