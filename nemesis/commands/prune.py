r"""Measure what each block's adapters contribute: blocks switched off, and Shapley values.

    python -m nemesis prune output/lora/seed1
    python -m nemesis prune output/lora/seed1 --permutations 200 --sample-seed 1

The players are the adapted blocks of both encoders. Up to 12 blocks all subsets are tested on the
run's test images, and the Shapley values are exact; above, they are means over --permutations
random orders. They sum to the value of all blocks minus that of none. Writes prune.md (.csv, .tex)
and prune_figure.png (.pdf, .csv) to --output-dir.

Exit codes: 0 done, 2 an error in the command.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dassl.utils import Parser, exit_code
from nemesis.adapters.figures import draw_pruning
from nemesis.adapters.scoring import run_scorer
from nemesis.adapters.studies import pruning
from safeio.files import prepare_output_dir

from .predict import positive
from .run_flags import add_load_flags, load_options, print_figures, read_adapters

DEFAULT_OUTPUT = Path("output/prune")


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(__doc__, "prune")
    add = parser.add_argument
    add("runs", nargs=1, type=Path, metavar="RUN_DIR", help="folder of a finished run")
    text = "random orders of more than 12 blocks; default 50"
    add("--permutations", type=positive, default=50, metavar="N", help=text)
    add("--sample-seed", type=int, default=0, metavar="N", help="of the orders; default 0")
    add("--output-dir", type=Path, default=DEFAULT_OUTPUT, help=f"default {DEFAULT_OUTPUT}")
    add_load_flags(parser)
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Write the table and the figure.

    Raises:
        UserError: the run has no adapters, or its images are missing.
    """
    (one,) = read_adapters(arguments)
    output = prepare_output_dir(arguments.output_dir)
    scorer = run_scorer(one.path, **load_options(arguments))
    found = pruning(one, scorer, arguments.permutations, arguments.sample_seed)
    table = found.table()
    table.write(output)
    print(table.markdown())
    print_figures(draw_pruning(found, output / "prune_figure.png"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(run, build_parser(), argv)
