r"""List the datasets and what of them is on the disk.

    python -m nemesis datasets --root data
    python -m nemesis datasets --json

`generated`: bundled, made at first use. `missing`: files that python -m nemesis download NAME
downloads. `own`: your images, in class folders or listed in a CSV, at DATASET.FOLDER.PATH.

Exit codes: 0 success, 2 an error in the command.
"""

import argparse
import json
from collections.abc import Sequence

from tabulate import tabulate

from dassl.utils import Parser, exit_code
from nemesis.catalogue import datasets

WIDTHS = [None, 60, None, 40]


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(__doc__, "datasets")
    parser.add_argument("--root", default="data", help="folder of the datasets (default: data)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Print the list."""
    found = datasets(arguments.root)
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    rows = [[one["name"], one["summary"], one["state"], ", ".join(one["missing"])] for one in found]
    header = ("dataset", "content", "on the disk", "missing")
    print(tabulate(rows, header, tablefmt="simple", maxcolwidths=WIDTHS))


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(run, build_parser(), argv)
