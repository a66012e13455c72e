r"""Benchmark this repository. Every section writes NAME.md and NAME.json to --output-dir.

    python -m nemesis bench --quick              # RN50, 100 classes: two minutes on two cores
    python -m nemesis bench --targets            # every row of the target table: seven minutes
    python -m nemesis bench                      # the cost of all steps: hours on two cores
    python -m nemesis bench --backbones RN50 --classes 100 --cases coop pan1 --repetitions 5
    python -m nemesis bench --table a8           # the paper's table of costs, measured
    python -m nemesis bench gpu                  # check a GPU: under eight minutes
    python -m nemesis bench corruption           # a corrupted prompt: three minutes

Sections (python -m nemesis bench SECTION --help lists the flags of one):
    cost        a step against a reference implementation (the default)
    methods     steps of KgCoOp, ProGrad and TCP against CoOp's: two minutes
    corruption  corrupted prompts: one process each against one pass
    towers      prompts in both towers against a reference implementation
    loading     data loading against the image encoder
    sweep       runs in a worker against a process each
    batch       the mini Table A5 in batches against run by run
    key-search  Tip-Adapter's grid search
    gpu         parity, determinism, costs and batches on a GPU: under eight minutes
    hours       projected GPU hours of the paper's tables
    soak        memory and open files of a process over many runs

Exit codes: 0 done, 2 an error in the command (stated in one sentence).
"""

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets  # noqa: F401  (registers)
import trainers  # noqa: F401  (registers)
from dassl.utils import Parser, exit_code
from safeio.errors import UserError
from safeio.files import prepare_output_dir

from . import batch, corruption, cost, hours, key_search, loading, methods, runs, towers
from .gpu_check import check
from .report import Report

Section = tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], Report]]
SECTIONS: dict[str, Section] = {
    "cost": (cost.add_flags, cost.run),
    "methods": (methods.add_flags, methods.run),
    "corruption": (corruption.add_flags, corruption.run),
    "towers": (towers.add_flags, towers.run),
    "loading": (loading.add_flags, loading.run),
    "sweep": (runs.add_sweep_flags, runs.run_sweep),
    "batch": (batch.add_flags, batch.run),
    "key-search": (key_search.add_flags, key_search.run),
    "gpu": (check.add_flags, check.run),
    "hours": (hours.add_flags, hours.run),
    "soak": (runs.add_soak_flags, runs.run_soak),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    section = words.pop(0) if words and not words[0].startswith("-") else "cost"
    parser = Parser(__doc__, "bench")
    if section in SECTIONS:
        SECTIONS[section][0](parser)
    default = Path("output/bench")
    parser.add_argument("--output-dir", type=Path, default=default, help=f"default {default}")

    def run(arguments: argparse.Namespace) -> None:
        if section not in SECTIONS:
            near = difflib.get_close_matches(section, SECTIONS, n=1, cutoff=0.0)[0]
            raise UserError(
                f"{section!a} is not a section of bench; did you mean {near!r}? "
                f"Choose from {', '.join(SECTIONS)}"
            )
        existed = arguments.output_dir.exists()
        folder = prepare_output_dir(arguments.output_dir)
        try:
            report = SECTIONS[section][1](arguments)
        except UserError:
            if not existed:
                folder.rmdir()
            raise
        print(report.write(folder))
        print(f"Table: {folder / report.name}.md  JSON: {folder / report.name}.json")

    return exit_code(run, parser, words if section in SECTIONS else [])
