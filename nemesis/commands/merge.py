r"""Merge the adapters of runs of CLIPLoRA or CoTo into one run, and test it on each run's images.

    python -m nemesis merge output/lora/seed1 output/lora/seed2 --output-dir output/merged
    python -m nemesis merge output/cars output/pets --weights sum --output-dir output/both
    python -m nemesis merge output/cars output/pets --weights 0.3 --output-dir output/both
    python -m nemesis merge output/cars output/pets --weights 0.7 0.3 --output-dir output/both

The merged update is sum_k w_k gamma_k B_k A_k, as one adapter whose rank is the sum of the ranks.
--weights is mean (1/K each), sum (1 each), one factor for all runs (task arithmetic) or one number
per run. The output folder is a run with the settings of the first one: predict, export and
train.py --eval-only --model-dir (with --config-file OUTPUT_DIR/config.yaml) read it. Its accuracy
on the test images of every run is in merge.md (.csv, .tex) and merge_figure.png next to it.

Exit codes: 0 done, 1 the images of a run could not be tested, 2 an error in the command.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dassl.utils import Parser, exit_code, reuse_loaded
from nemesis.adapters.adapter_runs import check_alike, write_merged
from nemesis.adapters.figures import draw_merge
from nemesis.adapters.scoring import run_scorer
from nemesis.adapters.studies import MERGE_COLUMNS, merge_row
from nemesis.report.table import Table
from safeio.errors import UserError

from .run_flags import add_load_flags, for_each_run, load_options, print_figures, read_adapters

PRESETS = ("mean", "sum")


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(__doc__, "merge")
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN_DIR", help="folders of finished runs")
    text = "mean (default), sum, one factor for all, or one number per run"
    add("--weights", nargs="+", default=["mean"], metavar="W", help=text)
    text = "folder of the merged run"
    add("--output-dir", type=Path, required=True, help=text)
    add_load_flags(parser)
    return parser


def read_weights(words: Sequence[str], count: int) -> list[float]:
    """Return a weight per run.

    Raises:
        UserError: a word is not a weight, or their number differs from that of the runs.
    """
    if words[0] in PRESETS and len(words) == 1:
        return [1 / count if words[0] == "mean" else 1.0] * count
    try:
        weights = [float(word) for word in words]
    except ValueError:
        weights = [float("nan")]
    if not all(abs(weight) < float("inf") for weight in weights):
        raise UserError(
            f"--weights is {' '.join(words)!a}, but must be {' or '.join(PRESETS)}, one finite "
            "number for all runs, or one per run"
        )
    if len(weights) not in (1, count):
        raise UserError(
            f"--weights has {len(weights)} numbers for {count} runs; give one per run, or one for "
            "all"
        )
    return weights * count if len(weights) == 1 else weights


def run(arguments: argparse.Namespace) -> int:
    """Write the merged run, and test it on the images of each run.

    Raises:
        UserError: the adapters or the number of weights do not fit, or the folder is taken.
    """
    weights = read_weights(arguments.weights, len(arguments.runs))
    runs = read_adapters(arguments)
    check_alike(runs)
    output = write_merged(runs, weights, arguments.output_dir)
    print(f"The merged run is in {output}")
    with reuse_loaded():
        scorers, failed = for_each_run(
            arguments.runs, lambda path: run_scorer(path, **load_options(arguments))
        )
        rows = [merge_row(one, scorers.get(one.path), runs, weights) for one in runs]
    text = "Accuracy in percent on the test images of each run."
    table = Table("merge", "Merged adapters", MERGE_COLUMNS, rows, text)
    table.write(output)
    print(f"\n{table.markdown()}")
    print_figures(draw_merge(rows, output / "merge_figure.png"))
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    return exit_code(run, build_parser(), argv)
