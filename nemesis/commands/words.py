r"""Find the words nearest to learned context vectors.

    python -m nemesis words output/food/CoOp/16shots/seed1 --top-k 3
    python -m nemesis words output/food/PLOT/16shots/seed1 --classes pizza sushi --json

Prints, for every vector, its norm and the entries of CLIP's vocabulary with the smallest Euclidean
distance, as CoOp's interpret_prompt does. Entries without an embedding in the weights (all zeros)
are left out. For CoCoOp, the vectors are those before conditioning on an image. Positions and
prompt sets count from 0. An entry with a hyphen is the beginning of a word; --json prints CLIP's
tokens, in which </w> ends a word.

Exit codes: 0 done, 1 a run could not be read (the others were), 2 an error in the command or its
only run.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dassl.utils import Parser, exit_code
from nemesis.inference.classifier import load
from nemesis.inference.words import word_table, words_of_prompts

from .predict import positive
from .run_flags import add_load_flags, add_third_party_flags, for_each_run, load_options


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(__doc__, "words")
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN_DIR", help="a run, or a folder containing runs")
    add("--json", action="store_true", help="print one JSON object, by run, instead of the tables")
    add("--top-k", type=positive, default=3, metavar="K", help="words per vector; default 3")
    text = "classes of class-specific prompts; default all"
    add("--classes", nargs="+", metavar="NAME", default=(), help=text)
    add_load_flags(parser)
    add_third_party_flags(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print a table per run."""

    def words_of_run(path: Path) -> list[dict[str, Any]]:
        classifier = load(path, **load_options(arguments))
        words = words_of_prompts(classifier, arguments.top_k, arguments.classes)
        if not arguments.json:
            print(word_table(words, str(path)).markdown())
        return words

    found, failed = for_each_run(arguments.runs, words_of_run)
    if arguments.json:
        print(json.dumps({str(path): words for path, words in found.items()}, indent=1))
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return exit_code(run, build_parser(), argv)
