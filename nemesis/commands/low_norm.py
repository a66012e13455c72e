r"""Study the Low-Norm Effect of finished runs: corrupt every position of their prompts in one pass.

    python -m nemesis low-norm output/food/CoOp/16shots/seed*   # or a folder containing runs
    python -m nemesis low-norm output/food --rescale 0.1 0.5 --positions 0 15

Writes a `corruption.json` to each run: accuracy and norm of the learned prompts, and of the prompts
with each vector replaced by noise (REPLACE) or multiplied by a factor (RESCALE). Positions count
from 0. A second call tests only missing corruptions. Writes the occurrence frequencies over seeds
(Tables A2 and A3) and the figures 1b and A1 to the folder --output.

Exit codes: 0 done, 1 a run could not be studied (the others were), 2 an error in the command.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import datasets  # noqa: F401  (registers the datasets)
import trainers  # noqa: F401  (registers the methods)
from dassl.utils import Parser, exit_code
from nemesis.inference.run_flags import add_ignore_flag, for_each_run
from nemesis.low_norm.corruption import FACTORS, STDS, CorruptionGrid, check_values
from nemesis.low_norm.figures import draw_figures
from nemesis.low_norm.frequency import group_by_seed
from nemesis.low_norm.study import StudiedRun, Study
from nemesis.low_norm.tables import write_tables
from safeio.errors import UserError
from safeio.files import prepare_output_dir

DEFAULT_OUTPUT = Path("output/low_norm")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(__doc__, "low-norm")
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN_DIR", help="a run, or a folder containing runs")
    add("--replace", nargs="*", type=float, default=STDS, metavar="STD", help=f"default {STDS}")
    add("--rescale", nargs="*", type=float, default=FACTORS, metavar="FACTOR", help="likewise")
    add("--positions", nargs="+", type=int, metavar="J", help="positions from 0; default all")
    add("--epoch", type=int, help="epoch of the checkpoints; default the best or the last")
    add("--noise-seed", type=int, default=0, help="seed of REPLACE's noise; default 0")
    add("--root", default="", help="data root; default the runs' own")
    add_ignore_flag(parser)
    add("--output", type=Path, default=DEFAULT_OUTPUT, help=f"default {DEFAULT_OUTPUT}")
    return parser


def make_grid(arguments: argparse.Namespace) -> CorruptionGrid:
    """Make the grid of corruptions from the flags.

    Raises:
        UserError: a value is invalid for a corruption.
    """
    check_values("--replace", arguments.replace)
    check_values("--rescale", arguments.rescale)
    for name in ("positions", "noise_seed", "epoch"):
        value = getattr(arguments, name)
        for number in value if isinstance(value, list) else [value]:
            if number is not None and number < 0:
                flag = name.replace("_", "-")
                raise UserError(f"--{flag} is {number}, but must be at least 0")
    positions = arguments.positions and tuple(sorted(set(arguments.positions)))
    return CorruptionGrid(
        tuple(dict.fromkeys(arguments.replace)),
        tuple(dict.fromkeys(arguments.rescale)),
        positions,
        arguments.noise_seed,
    )


def study_run(run_dir: Path, arguments: argparse.Namespace, grid: CorruptionGrid) -> Study:
    """Study one run and print one line about it.

    Raises:
        UserError: see `StudiedRun` and its `study`.
    """
    run = StudiedRun(run_dir, arguments.root, arguments.ignore_mismatch)
    study = run.study(grid, arguments.epoch)
    better = sum(entry["accuracy_change"] > 0 for entry in study.entries.values())
    print(
        f"{run_dir}: {study.original['accuracy']:.1f}% as learned, better with {better} of "
        f"{len(study.entries)} corruptions",
        flush=True,
    )
    return study


def run(arguments: argparse.Namespace) -> int:
    """Study the runs, then write tables and figures.

    Raises:
        UserError: a value is invalid, or runs differ in more than the seed.
    """
    grid = make_grid(arguments)
    output = prepare_output_dir(arguments.output)
    studies, failed = for_each_run(arguments.runs, lambda path: study_run(path, arguments, grid))
    if studies:
        cells = group_by_seed(studies.values())
        for path in write_tables(cells, grid.settings, output):
            print(f"\n{path.read_text(encoding='utf-8')}")
        for path in draw_figures(cells, grid.settings, output):
            print(f"Figure: {path} (with .pdf and .csv)")
        print(f"Tables: {output}/low_norm_*.md (with .csv and .tex)")
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return exit_code(run, build_parser(), argv)
