r"""Find the words nearest to learned context vectors.

    python -m nemesis words output/food/CoOp/16shots/seed1 --top-k 3
    python -m nemesis words output/food/PLOT/16shots/seed1 --classes pizza sushi --json words.json

Prints, for every vector, its norm and the entries of CLIP's vocabulary with the smallest Euclidean
distance, as CoOp's interpret_prompt does. Entries without an embedding in the weights (all zeros)
are left out. For CoCoOp, the vectors are those before conditioning on an image. Positions and
prompt sets count from 0. A token with </w> ends a word; a token without is the beginning of one.

Exit codes: 0 done, 1 a run could not be read (the others were), 2 an error in the command.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets  # noqa: F401  (registers the datasets)
import trainers  # noqa: F401  (registers the methods)
from dassl.utils import Parser, exit_code
from nemesis.inference.run_flags import add_setup_flags, for_each_run, load_quietly
from nemesis.inference.words import interpret, word_table
from safeio.errors import UserError
from safeio.files import write_json
from trainers.core.prompt_trainer import PromptTrainer


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(__doc__, "words")
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN_DIR", help="a run, or a folder containing runs")
    add("--top-k", type=int, default=3, help="words per vector; default 3")
    classes = "classes of class-specific prompts; default all"
    add("--classes", nargs="+", metavar="NAME", help=classes)
    add("--epoch", type=int, help="epoch of the checkpoint; default the best or the last")
    add_setup_flags(parser)
    add("--json", type=Path, metavar="FILE", help="also write the results to this file")
    return parser


def words_of_run(run_dir: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Print the table of a run and return its vectors with their nearest words.

    Raises:
        UserError: the run cannot be loaded, has no prompts or lacks a class, or the backbone's
            weights are not available.
    """
    trainer = load_quietly(run_dir, arguments, arguments.epoch)
    if not isinstance(trainer, PromptTrainer):
        raise UserError(f"{trainer.cfg.TRAINER.NAME} has no learned prompts")
    words = interpret(trainer, arguments.top_k, arguments.classes)
    print(f"{run_dir}\n\n{word_table(words)}\n")
    return words


def run(arguments: argparse.Namespace) -> int:
    """Print a table per run.

    Raises:
        UserError: --top-k is below 1.
    """
    if arguments.top_k < 1:
        raise UserError(f"--top-k is {arguments.top_k}, but must be at least 1")
    found, failed = for_each_run(arguments.runs, lambda path: words_of_run(path, arguments))
    if arguments.json and found:
        write_json({str(path): words for path, words in found.items()}, arguments.json)
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return exit_code(run, build_parser(), argv)
