r"""Study the Low-Norm Effect of finished runs: corrupt every position of their prompts in one pass.

    python -m nemesis low-norm output/food/CoOp/16shots/seed*   # or a folder containing runs
    python -m nemesis low-norm output/food --rescale 0.1 0.5 --positions 0 15
    python -m nemesis low-norm output/a output/b --over-epochs --rescale 0.5

Writes a `corruption.json` to each run: accuracy and norm of the learned prompts, and of the prompts
with each vector replaced by noise (REPLACE) or multiplied by a factor (RESCALE). Positions count
from 0. A second call tests only missing corruptions. Writes the occurrence frequencies over seeds
(Tables A2 and A3) and the figures 1b and A1 to the folder --output-dir.

Prompts in several layers (VPT, IVLP, MaPLe, PromptSRC) are studied in parts: all layers of an
encoder at once (text, vision), and each layer alone (text.0, vision.2); --prompts chooses some.

--over-epochs N studies the checkpoints of every N-th epoch instead (`corruption-<epoch>.json`) and
draws Figure 3 (test accuracy, that of prompts with one vector rescaled, mean norm) and for each run
Figure A2 or A3 (loss, accuracy, each position's norm and how often PAN selected it). The runs need
a checkpoint per epoch (TRAIN.CHECKPOINT_FREQ 1). --rescale without a factor leaves Figure 3 out.

Exit codes: 0 done, 1 a run could not be studied (the others were), 2 an error in the command or its
only run.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dassl.config import load_config
from dassl.utils import Parser, exit_code
from nemesis.low_norm.corruption import FACTORS, STDS, CorruptionGrid, check_values
from nemesis.low_norm.figures import draw_figures
from nemesis.low_norm.frequency import group_by_seed
from nemesis.low_norm.history import read_training
from nemesis.low_norm.parts import ENCODERS, check_parts
from nemesis.low_norm.study import StudiedRun, Study
from nemesis.low_norm.tables import frequency_tables
from nemesis.low_norm.training_figures import draw_low_norm_over_epochs, draw_process
from nemesis.run_config import pairs
from safeio.errors import UserError
from safeio.files import prepare_output_dir

from .run_flags import add_load_flags, for_each_run, load_options, print_figures, run_folders

DEFAULT_OUTPUT = Path("output/low_norm")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(__doc__, "low-norm")
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN_DIR", help="a run, or a folder containing runs")
    text = "standard deviations; default " + " ".join(map(str, STDS))
    add("--replace", nargs="*", type=float, metavar="STD", help=text)
    text = "default " + " ".join(map(str, FACTORS)) + "; over epochs 0.5"
    add("--rescale", nargs="*", type=float, metavar="FACTOR", help=text)
    add("--positions", nargs="+", type=int, metavar="J", help="positions from 0; default all")
    text = f"parts such as text or vision.2; {ENCODERS}: all but single layers; default all"
    add("--prompts", nargs="+", metavar="PART", help=text)
    add("--noise-seed", type=int, default=0, metavar="N", help="of REPLACE's noise; default 0")
    text = "study every N-th checkpoint, and draw figures over the epochs; without N each"
    add("--over-epochs", nargs="?", type=int, const=1, metavar="N", help=text)
    add("--output-dir", type=Path, default=DEFAULT_OUTPUT, help=f"default {DEFAULT_OUTPUT}")
    add_load_flags(parser)
    return parser


def make_grid(arguments: argparse.Namespace) -> CorruptionGrid:
    """Make the grid of corruptions from the flags.

    Raises:
        UserError: a value is invalid for a corruption.
    """
    for name, least in (("positions", 0), ("noise_seed", 0), ("epoch", 1), ("over_epochs", 1)):
        value = getattr(arguments, name)
        for number in value if isinstance(value, list) else [value]:
            if number is not None and number < least:
                flag = name.replace("_", "-")
                raise UserError(f"--{flag} is {number}, but must be at least {least}")
    over_epochs = arguments.over_epochs is not None
    defaults = {
        "replace": () if over_epochs else STDS,
        "rescale": (0.5,) if over_epochs else FACTORS,
    }
    values = {}
    for name, default in defaults.items():
        own = getattr(arguments, name)
        values[name] = default if own is None else tuple(dict.fromkeys(own))
        check_values(f"--{name}", values[name])
    positions = arguments.positions and tuple(sorted(set(arguments.positions)))
    return CorruptionGrid(**values, positions=positions, noise_seed=arguments.noise_seed)


def run(arguments: argparse.Namespace) -> int:
    """Study the runs, then write tables and figures.

    Raises:
        UserError: a value is invalid, or runs differ in more than the seed.
    """
    grid = make_grid(arguments)
    if arguments.over_epochs is not None and arguments.epoch is not None:
        raise UserError(
            "--epoch chooses one checkpoint, --over-epochs several; omit one of the two"
        )
    arguments.runs = run_folders(arguments.runs)
    load_config(opts=pairs(dict(arguments.set)))  # refuses unknown keys before anything is written
    output = prepare_output_dir(arguments.output_dir)
    study = study_prompts if arguments.over_epochs is None else study_trainings
    return 1 if study(arguments, grid, output) else 0


def open_run(path: Path, arguments: argparse.Namespace) -> list[StudiedRun]:
    """Return the parts of the run with the flags of `add_load_flags`, loaded on first use."""
    options = load_options(arguments)
    del options["epoch"]  # the study chooses the checkpoint
    first = StudiedRun(path, **options)
    return [
        StudiedRun(path, part, **options) for part in check_parts(arguments.prompts, first.parts)
    ]


def study_prompts(arguments: argparse.Namespace, grid: CorruptionGrid, output: Path) -> int:
    """Study the prompts of each run, write tables and figures; return the number of failures."""

    def study_run(path: Path) -> list[Study]:
        studies = []
        for part in open_run(path, arguments):
            study = part.study(grid, arguments.epoch)
            studies.append(study)
            better = sum(entry["accuracy_change"] > 0 for entry in study.entries.values())
            print(
                f"{' '.join(filter(None, (str(path), part.part)))}: "
                f"{study.original['accuracy']:.1f}% as learned, better with {better} of "
                f"{len(study.entries)} corruptions",
                flush=True,
            )
        return studies

    found, failed = for_each_run(arguments.runs, study_run)
    studies = [study for parts in found.values() for study in parts]
    if studies:
        cells = group_by_seed(studies)
        for table in frequency_tables(cells, grid.settings):
            table.write(output)
            print(f"\n{table.markdown()}")
        print_figures(*draw_figures(cells, grid.settings, output))
        print(f"Tables: {output}/low_norm_*.md (with .csv and .tex)")
    return failed


def study_trainings(arguments: argparse.Namespace, grid: CorruptionGrid, output: Path) -> int:
    """Study each run over its epochs, draw the figures; return the number of failures."""
    every = arguments.over_epochs
    found, failed = for_each_run(
        arguments.runs,
        lambda path: [read_training(part, grid, every) for part in open_run(path, arguments)],
    )
    trainings = [training for parts in found.values() for training in parts]
    paths = [draw_process(training, output) for training in trainings]
    if trainings and grid.settings:
        paths.append(draw_low_norm_over_epochs(trainings, output / "figure_3.png"))
    print_figures(*paths)
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return exit_code(run, build_parser(), argv)
