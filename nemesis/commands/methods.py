r"""List the methods: their papers, prompts and encoders, and what Nemesis acts on.

    python -m nemesis methods
    python -m nemesis methods --json

A trainer of your own in trainers/ is listed, too; its class attributes `paper`, `prompts`, `towers`
and `normalizes` fill the columns.

Exit codes: 0 success, 2 an error in the command.
"""

import argparse
import json
from collections.abc import Sequence

from tabulate import tabulate

from dassl.utils import Parser, exit_code
from nemesis.catalogue import methods

COLUMNS = ("name", "paper", "prompts", "towers", "nemesis")
HEADER = ("method", "paper", "prompts", "encoders", "Nemesis acts on")
WIDTHS = [None, 30, 30, 12, 30]


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(__doc__, "methods")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Print the list."""
    found = methods()
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    rows = [[one[key] for key in COLUMNS] for one in found]
    print(tabulate(rows, HEADER, tablefmt="simple", maxcolwidths=WIDTHS))


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(run, build_parser(), argv)
