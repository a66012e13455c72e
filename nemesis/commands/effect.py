"""Does Nemesis gain where the Low-Norm Effect is frequent? Compare finished runs with a baseline.

    python -m nemesis effect output/mini/paper
    python -m nemesis effect output/few_shot --baseline CoOp --rows "CoOp+PUN (omega 1)"

Rescales every vector of the baseline's prompts, as low-norm does (what is tested already is kept),
and writes tables and figures to --output-dir: each row's gain by dataset and shots beside the
frequency of the effect, their correlation, and paired tests; whether PAN selected in training the
positions that the study of its own prompts improves (--selected, a row with PAN); and one figure
with the gain over shots and the accuracy with one vector rescaled.

Exit codes: 0 done, 1 a run could not be studied (the others were), 2 an error in the command.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from dassl.utils import Parser, exit_code, reuse_loaded
from nemesis.api import Run as FinishedRun
from nemesis.low_norm import gain, gain_figures
from nemesis.low_norm.corruption import FACTORS, CorruptionGrid, check_values
from nemesis.low_norm.frequency import group_by_seed
from nemesis.low_norm.study import StudiedRun, Study
from nemesis.report.comparison import choose_baseline
from nemesis.report.reading import read_runs
from nemesis.report.results import Runs
from nemesis.report.settings import name_rows
from safeio.errors import UserError
from safeio.files import prepare_output_dir

from .run_flags import for_each_run, print_figures

TAU = 0.5  # PAN's default factor


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(__doc__, "effect")
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="FOLDER", help="folders that contain finished runs")
    add("--baseline", metavar="ROW", help="row to compare with; default CoOp")
    add("--rows", nargs="+", metavar="ROW", default=(), help="rows of the figure over shots")
    add("--selected", metavar="ROW", help="a row with PAN whose selections are compared")
    text = "default " + " ".join(f"{factor:g}" for factor in FACTORS if factor < 1)
    add("--rescale", nargs="+", type=float, metavar="FACTOR", help=text)
    add("--output-dir", type=Path, default=Path("output/effect"), help="default output/effect")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Study the baseline's prompts, then write tables and figures.

    Raises:
        UserError: a row or value is unknown, or no run can be compared.
    """
    factors = tuple(arguments.rescale or (factor for factor in FACTORS if factor < 1))
    check_values("--rescale", factors)
    grid = CorruptionGrid(replace=(), rescale=factors)
    runs, baseline = _read(arguments)
    rows = gain.gains_of_rows(runs, baseline)
    if not rows:
        raise UserError(f"no run can be compared with {baseline}; there are {_names(runs)}")
    output = prepare_output_dir(arguments.output_dir)
    studies, failed = _study(runs, baseline, grid)
    cells = list(group_by_seed(studies.values()).values())
    frequencies = gain.frequencies_of(cells, grid.settings)
    of = cells[0].length * sum(factor < 1 for factor in factors) if cells else 0
    tables = [gain.gain_table(rows, frequencies, of), gain.correlation_table(rows, frequencies)]
    if arguments.selected:
        chosen, count = _study(runs, arguments.selected, _with_tau(grid))
        failed += count
        tables.append(gain.agreement_table(_agreements(chosen), arguments.selected))
    for table in tables:
        table.write(output)
        print(f"\n{table.markdown()}")
    figures = [gain_figures.draw_gain(rows, frequencies, output / "gain_and_frequency.png")]
    if cells:
        shown = [row for row in rows if row.label in arguments.rows] or rows
        cell = max(cells, key=lambda one: one.low_norm_frequency(grid.settings) or 0)
        path = output / "effect.png"
        figures.append(gain_figures.draw_effect(shown, cell, min(factors), baseline, path))
    print_figures(*figures)
    print(f"Tables: {output}/*.md (with .csv and .tex)")
    return 1 if failed else 0


def _read(arguments: argparse.Namespace) -> tuple[Runs, str]:
    """Return the runs with their rows, and the baseline's row.

    Raises:
        UserError: a row is unknown.
    """
    named = name_rows(read_runs(arguments.runs).runs).runs
    runs = [(label, run) for label, run in named if "model_dir" not in run]  # no evaluations
    baseline = choose_baseline(runs, arguments.baseline)
    if baseline is None:
        raise UserError(f"no row is called CoOp; name one of {_names(runs)} with --baseline")
    for row in (*arguments.rows, *filter(None, [arguments.selected])):
        if row not in {label for label, _ in runs}:
            raise UserError(f'"{row}" is not a row; there are {_names(runs)}')
    return runs, baseline


def _names(runs: Runs) -> str:
    return ", ".join(f'"{label}"' for label in dict.fromkeys(label for label, _ in runs))


def _with_tau(grid: CorruptionGrid) -> CorruptionGrid:
    return CorruptionGrid((), tuple(sorted({*grid.rescale, TAU})))


def _study(runs: Runs, row: str, grid: CorruptionGrid) -> tuple[dict[Path, Study], int]:
    folders = [run["folder"] for label, run in runs if label == row]
    with reuse_loaded():
        return for_each_run(folders, lambda path: StudiedRun(path).study(grid))


def _agreements(studies: dict[Path, Study]) -> dict[int, list[float]]:
    found: defaultdict[int, list[float]] = defaultdict(list)
    for folder, study in studies.items():
        selected = gain.selections(FinishedRun(folder).history)
        result = gain.agreement(selected, study, TAU) if selected else None
        if result is not None:
            found[study.run["shots"]].append(result.rho)
    return dict(found)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return exit_code(run, build_parser(), argv)
