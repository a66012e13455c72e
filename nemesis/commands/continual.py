r"""Learn a dataset's classes in tasks, one after the other, and test all classes after each task.

    python -m nemesis continual emoji_food --tasks 5 --methods CLIPLoRA CLIPLoRA:merged
    python -m nemesis continual dtd --seeds 1 2 3 --config vit_b16 --methods CoOp

A method is TRAINER[:STRATEGY[:CONFIG]]. The strategy states what a task takes from those before it:
sequential starts from the previous prompts or adapters (the default); merged merges the adapters of
the past into the backbone and starts a new one; orthogonal, for OrthogonalLoRA, also keeps the rows
of A orthogonal to the past. CONFIG is --config by default. Zero-shot CLIP is always a row. The seed
draws the tasks' classes. The folder is for one dataset and the same other flags; it gets a run of
each method, seed and task, and finished runs are not repeated. continual.md (.csv,
.tex, .json, .png, .pdf) has average and last accuracy on the seen classes, forgetting, and the drop
against zero-shot CLIP on the classes still to come.

Exit codes: 0 done, 1 a method failed (the others are reported), 2 an error in the command.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dassl.utils import Parser, exit_code
from dassl.utils.command_line import add_set_flag
from nemesis.continual.protocol import DEFAULT, ZERO_SHOT, Method, Outcome, Protocol
from nemesis.continual.report import write_report
from safeio.errors import UserError
from safeio.files import prepare_output_dir
from safeio.untrusted import printable


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(__doc__, "continual")
    add = parser.add_argument
    add("dataset", metavar="DATASET", help="file of configs/datasets without .yaml, or a path")
    add("--methods", nargs="+", default=[DEFAULT], metavar="METHOD", help=f"default {DEFAULT}")
    add("--config", default="mini", help="of methods that name none; default mini")
    add("--tasks", type=int, default=5, metavar="K", help="number of tasks; default 5")
    add("--shots", type=int, default=16, metavar="N", help="images of each class; default 16")
    add("--seeds", type=int, nargs="+", default=[1], metavar="N", help="default 1")
    add("--root", default="data", help="folder of the datasets; default data")
    add("--output-dir", type=Path, default=Path("output/continual"), metavar="DIR", help="of runs")
    add("--verbose", action="store_true", help="print the runs' logs")
    add_set_flag(parser, "a setting for all runs")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Train, test and report all methods; return the exit code.

    Raises:
        UserError: a method or a setting is invalid.
    """
    for flag, least in (("tasks", 2), ("shots", 1)):
        if getattr(arguments, flag) < least:
            value = getattr(arguments, flag)
            raise UserError(f"--{flag} is {value}, but must be at least {least}")
    methods = [Method.parse(text) for text in dict.fromkeys([ZERO_SHOT, *arguments.methods])]
    common = (arguments.dataset, arguments.config, arguments.shots, arguments.tasks)
    folder = arguments.output_dir
    protocol = Protocol(*common, folder, arguments.root, dict(arguments.set))
    for method in methods:
        protocol.check(method)
    prepare_output_dir(folder)
    outcomes: dict[str, dict[int, Outcome]] = {}
    failed = 0
    for method in methods:
        for seed in dict.fromkeys(arguments.seeds):
            try:
                runs = protocol.train(method, seed, arguments.verbose)
                found = protocol.evaluate(runs, arguments.verbose)
            except (UserError, FloatingPointError) as error:
                if method.trainer == ZERO_SHOT:
                    raise
                failed += 1
                print(printable(f"error: {method.label}, seed {seed}: {error}"), file=sys.stderr)
                continue
            outcomes.setdefault(method.label, {})[seed] = found
            print(f"{method.label}, seed {seed}: {found.seen[-1]:.1f}% in the end", flush=True)
    table = write_report(outcomes, protocol, folder)
    print(f"\n{table.markdown()}\nTable and figure: {folder}/continual.md, continual.png")
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(run, build_parser(), argv)
