r"""Benchmark the cost of a step: this repository against a reference implementation, in one run.

    python -m nemesis bench --quick              # RN50, 100 classes: two minutes on two cores
    python -m nemesis bench --targets            # every row of the target table: seven minutes
    python -m nemesis bench --corruption         # a corrupted prompt: three minutes
    python -m nemesis bench                      # all cases: hours on two cores
    python -m nemesis bench --backbones RN50 --classes 100 --cases coop pan1 --repetitions 5
    python -m nemesis bench --table a8           # the paper's table of costs, measured
    python -m nemesis bench --loading            # data loading against the image encoder

Exit codes: 0 done, 2 an error in the command (stated in one sentence).
"""

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.cost.cases import CASES, Setting
from benchmarks.cost.corruption import TEST_IMAGES, measure, report
from benchmarks.cost.figures import draw_all
from benchmarks.cost.loading import measure_loading, write_loading_report
from benchmarks.cost.parity import parity
from benchmarks.cost.report import environment, write_report
from benchmarks.cost.run import Effort, Entries, full_jobs, quick_jobs, run_jobs, target_jobs
from benchmarks.cost.synthetic import Backbone, class_names
from benchmarks.cost.tables import BASELINE, TABLES, classes_of, write_cost_table
from dassl.config import load_config
from dassl.utils import Parser, choose_device, exit_code
from datasets.imagenet import imagenet_classnames
from safeio.errors import UserError
from safeio.files import prepare_output_dir

BACKBONES = ("RN50", "ViT-B/16")
CLASSES = (10, 100, 1000)
# Repetitions of each workload, and seconds after which it skips the remaining ones.
EFFORT = {"quick": (2, 5.0), "targets": (15, 20.0), "full": (5, 90.0)}
CHECKED = ("coop",)  # the tests check every method


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(__doc__, "bench")
    add = parser.add_argument
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="most targets: RN50, 100 classes")
    size.add_argument(
        "--targets", action="store_true", help="all targets: also memory and C = 1000"
    )
    size.add_argument(
        "--loading", action="store_true", help="images/s of loading and encoding: RN50 and mini"
    )
    size.add_argument(
        "--corruption",
        action="store_true",
        help="corrupted prompts, one process each or one pass: RN50, 100 classes, on the CPU",
    )
    size.add_argument("--table", choices=TABLES, help="the paper's table of costs, measured")
    add("--backbones", nargs="+", metavar="NAME", help=f"default {' '.join(BACKBONES)}; also mini")
    add(
        "--classes",
        nargs="+",
        type=int,
        metavar="C",
        help="numbers of classes, default 10 100 1000",
    )
    add("--cases", nargs="+", metavar="CASE", help=f"some of: {' '.join(CASES)}")
    add("--repetitions", type=int, help="of each workload, default 5 (--quick: 2, --targets: 15)")
    add("--threads", type=int, default=torch.get_num_threads(), help="PyTorch's CPU threads")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps")
    add("--output-dir", type=Path, default=Path("output/bench"), help="default output/bench")
    return parser


def check(arguments: argparse.Namespace) -> None:
    """Check the values and the combination of flags.

    Raises:
        UserError: a case is unknown, a number of classes is above the number of ImageNet's, there
            is less than one repetition or thread, or --quick or --targets has a selection.
    """
    names = len(imagenet_classnames())
    for key in ("repetitions", "threads"):
        value = getattr(arguments, key)
        if value is not None and value < 1:
            raise UserError(f"--{key} is {value}, but must be at least 1.")
    for count in arguments.classes or ():
        if not 1 <= count <= names:
            raise UserError(
                f"--classes is {count}, but must be from 1 to {names}, ImageNet's names."
            )
    for case in arguments.cases or ():
        if case not in CASES:
            near = difflib.get_close_matches(case, CASES, n=1, cutoff=0.0)[0]
            raise UserError(
                f"--cases: {case!r} is unknown; did you mean {near!r}? "
                f"Choose from {', '.join(CASES)}."
            )
    _check_selection(arguments)


def _check_selection(arguments: argparse.Namespace) -> None:
    """Check that a flag with a fixed selection is not combined with another selection."""
    if arguments.table and arguments.cases:
        raise UserError("--table determines the cases; leave out --cases.")
    fixed = arguments.quick or arguments.targets
    if fixed and (arguments.backbones or arguments.classes or arguments.cases):
        raise UserError(
            "--quick and --targets determine the measurements; leave out --backbones, --classes "
            "and --cases."
        )


def run_loading(arguments: argparse.Namespace) -> None:
    """Measure loading and encoding, and write and print the report.

    Raises:
        UserError: classes or cases are passed, the device is not available, or a backbone is
            unknown.
    """
    if arguments.classes or arguments.cases:
        raise UserError("--loading does not accept --classes or --cases; leave them out.")
    device = choose_device(load_config(opts=["DEVICE", arguments.device]))
    backbones = [Backbone.find(name) for name in arguments.backbones or ("RN50", "mini")]
    folder = Path(prepare_output_dir(str(arguments.output_dir)))
    torch.set_num_threads(arguments.threads)
    effort = Effort(arguments.repetitions or 3, 60.0, arguments.threads)
    speeds = [s for backbone in backbones for s in measure_loading(backbone, device, effort)]
    print(write_loading_report(folder, speeds, environment(device, effort)))
    print(f"Table: {folder / 'loading.md'}  JSON: {folder / 'loading.json'}")


def run_cases(arguments: argparse.Namespace) -> None:
    """Measure the selected cases on both sides, and write and print the report.

    Raises:
        UserError: the device is not available, or a backbone is unknown.
    """
    device = choose_device(load_config(opts=["DEVICE", arguments.device]))
    fixed = arguments.quick or arguments.targets
    names = arguments.backbones or (BACKBONES[:1] if fixed else BACKBONES)
    backbones = [Backbone.find(name) for name in dict.fromkeys(names)]
    folder = Path(prepare_output_dir(str(arguments.output_dir)))
    torch.set_num_threads(arguments.threads)
    size = "quick" if arguments.quick else "targets" if arguments.targets else "full"
    repetitions, budget = EFFORT[size]
    effort = Effort(arguments.repetitions or repetitions, budget, arguments.threads)
    classes = sorted(set(arguments.classes or CLASSES))
    cases = list(dict.fromkeys(arguments.cases or CASES))
    jobs = full_jobs(classes, cases)
    if fixed:
        jobs = quick_jobs() if arguments.quick else target_jobs()

    measured, differences = [], {}
    print(f"{len(jobs) * len(backbones)} measurements on {device} ...", flush=True)
    for backbone in backbones:
        setting = Setting(backbone, class_names(3), device)
        differences[backbone.name] = max(parity(setting, CHECKED).values())
        measured += run_jobs(backbone, jobs, device, effort)
    entries = Entries(measured)
    figures = draw_all(entries, folder)
    print(write_report(folder, entries, environment(device, effort), differences, figures))
    print(f"Table: {folder / 'bench.md'}  JSON: {folder / 'bench.json'}")
    for path in figures:
        print(f"Figure: {path} (with .pdf and .csv)")


def run_table(arguments: argparse.Namespace) -> None:
    """Measure the cases of one of the paper's tables on both sides, and write and print it.

    Raises:
        UserError: the device is not available, or a backbone is unknown.
    """
    key = arguments.table
    device = choose_device(load_config(opts=["DEVICE", arguments.device]))
    backbones = [Backbone.find(name) for name in arguments.backbones or BACKBONES[:1]]
    folder = Path(prepare_output_dir(str(arguments.output_dir)))
    torch.set_num_threads(arguments.threads)
    repetitions, budget = EFFORT["full"]
    effort = Effort(arguments.repetitions or repetitions, budget, arguments.threads)
    classes = sorted(set(arguments.classes or classes_of(key)))
    jobs = full_jobs(classes, [BASELINE, *TABLES[key].columns])
    jobs = [replace(job, memory=False) for job in jobs]
    measured = [entry for one in backbones for entry in run_jobs(one, jobs, device, effort)]
    print(write_cost_table(key, Entries(measured), folder, environment(device, effort)))
    print(f"Table: {folder / f'table_{key}.md'}  JSON: {folder / f'table_{key}.json'}")


def run_corruption(arguments: argparse.Namespace) -> None:
    """Measure a corrupted prompt, and write and print the report.

    Raises:
        UserError: a backbone is unknown.
    """
    backbone = Backbone.find((arguments.backbones or BACKBONES)[0])
    classes, repetitions = (arguments.classes or [100])[0], arguments.repetitions or 3
    folder = Path(prepare_output_dir(str(arguments.output_dir)))
    torch.set_num_threads(arguments.threads)
    effort = Effort(repetitions, 0.0, arguments.threads)
    settings = {"backbone": backbone.name, "classes": classes, "test images": TEST_IMAGES}
    settings |= environment(torch.device("cpu"), effort)
    cost = measure(backbone, classes, repetitions, arguments.threads)
    print(report(cost, folder, settings))
    print(f"Table: {folder / 'corruption.md'}  JSON: {folder / 'corruption.json'}")


def run(arguments: argparse.Namespace) -> None:
    """Run the selected benchmark.

    Raises:
        UserError: see `check`; or the device is not available, or a backbone is unknown.
    """
    check(arguments)
    if arguments.loading:
        run_loading(arguments)
    elif arguments.corruption:
        run_corruption(arguments)
    elif arguments.table:
        run_table(arguments)
    else:
        run_cases(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return exit_code(run, build_parser(), argv)
