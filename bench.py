r"""What a step costs: the textbook way of tuning prompts beside ours, in one run.

    python bench.py --quick                      # RN50, 100 classes: two minutes on two cores
    python bench.py --targets                    # every row of the target table: seven minutes
    python bench.py --corruption                 # a corrupted prompt: three minutes
    python bench.py                              # everything, hours on two cores
    python bench.py --backbones RN50 --classes 100 --cases coop pan1 --repetitions 5
    python bench.py --table a8                   # the paper's table of costs beside ours
    python bench.py --loading                    # does loading keep up with the tower: minutes

Exit codes: 0 done, 2 a mistake in the command (one sentence says which).
"""

from dassl.startup import importing

with importing(__name__):
    import argparse
    import difflib
    import sys
    from collections.abc import Sequence
    from dataclasses import replace
    from pathlib import Path

    import torch

    from analysis.cost.cases import CASES, Setting
    from analysis.cost.corruption import TEST_IMAGES, measure, report
    from analysis.cost.figures import draw_all
    from analysis.cost.loading import measure_loading, write_loading_report
    from analysis.cost.parity import parity
    from analysis.cost.report import environment, write_report
    from analysis.cost.run import Effort, Entries, full_plan, quick_plan, run_plan, target_plan
    from analysis.cost.synthetic import Backbone, class_names
    from analysis.cost.tables import BASELINE, TABLES, classes_of, write_cost_table
    from dassl.config import load_config
    from dassl.utils import Parser, choose_device, exit_code
    from datasets.imagenet import imagenet_classnames
    from safeio.errors import UserError
    from safeio.files import prepare_output_dir

BACKBONES = ("RN50", "ViT-B/16")
CLASSES = (10, 100, 1000)
# Repetitions of each workload, and seconds after which it sits out the rest of them.
EFFORT = {"quick": (2, 5.0), "targets": (15, 20.0), "full": (5, 90.0)}
CHECKED = ("coop",)  # the tests check every method


def build_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = Parser(__doc__)
    add = parser.add_argument
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="most targets: RN50, 100 classes")
    size.add_argument(
        "--targets", action="store_true", help="all targets: also memory and C = 1000"
    )
    size.add_argument(
        "--loading", action="store_true", help="images/s of loading beside encoding: RN50 and mini"
    )
    size.add_argument(
        "--corruption",
        action="store_true",
        help="a process per corrupted prompt beside one pass: RN50, 100 classes, on the CPU",
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
    add("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch on the CPU")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps")
    add("--output-dir", type=Path, default=Path("output/bench"), help="default output/bench")
    return parser


def check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be measured, and fill in the defaults.

    Raises:
        UserError: an unknown case, a number of classes that ImageNet's names do not give, fewer
            than one repetition or thread, or --quick or --targets with a selection.
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
    """Refuse a selection beside a flag that makes it."""
    if arguments.table and arguments.cases:
        raise UserError("--table says which cases are measured; leave out --cases.")
    fixed = arguments.quick or arguments.targets
    if fixed and (arguments.backbones or arguments.classes or arguments.cases):
        raise UserError(
            "--quick and --targets say what is measured; leave out --backbones, --classes and "
            "--cases."
        )


def run_loading(arguments: argparse.Namespace) -> None:
    """Measure loading beside encoding, and say where the report is.

    Raises:
        UserError: classes or cases are given; or the device is not there.
        UserError: an unknown backbone.
    """
    if arguments.classes or arguments.cases:
        raise UserError("--loading has no --classes and no --cases; leave them out.")
    device = choose_device(load_config(opts=["DEVICE", arguments.device]))
    backbones = [Backbone.find(name) for name in arguments.backbones or ("RN50", "mini")]
    folder = Path(prepare_output_dir(str(arguments.output_dir)))
    torch.set_num_threads(arguments.threads)
    effort = Effort(arguments.repetitions or 3, 60.0, arguments.threads)
    speeds = [s for backbone in backbones for s in measure_loading(backbone, device, effort)]
    print(write_loading_report(folder, speeds, environment(device, effort)))
    print(f"Table: {folder / 'loading.md'}  JSON: {folder / 'loading.json'}")


def run_cases(arguments: argparse.Namespace) -> None:
    """Measure the cases of a plan, both sides, by turns.

    Raises:
        UserError: the device is not there.
        UserError: an unknown backbone.
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
    plan = full_plan(classes, cases)
    if fixed:
        plan = quick_plan() if arguments.quick else target_plan()

    measured, differences = [], {}
    print(f"{len(plan) * len(backbones)} measurements on {device} ...", flush=True)
    for backbone in backbones:
        setting = Setting(backbone, class_names(3), device)
        differences[backbone.name] = max(parity(setting, CHECKED).values())
        measured += run_plan(backbone, plan, device, effort)
    entries = Entries(measured)
    figures = draw_all(entries, folder)
    print(write_report(folder, entries, environment(device, effort), differences, figures))
    print(f"Table: {folder / 'bench.md'}  JSON: {folder / 'bench.json'}")
    for path in figures:
        print(f"Figure: {path} (with .pdf and .csv)")


def run_table(arguments: argparse.Namespace) -> None:
    """Measure the cases of one of the paper's tables, both sides, and write it.

    Raises:
        UserError: the device is not there.
        UserError: an unknown backbone.
    """
    key = arguments.table
    device = choose_device(load_config(opts=["DEVICE", arguments.device]))
    backbones = [Backbone.find(name) for name in arguments.backbones or BACKBONES[:1]]
    folder = Path(prepare_output_dir(str(arguments.output_dir)))
    torch.set_num_threads(arguments.threads)
    repetitions, budget = EFFORT["full"]
    effort = Effort(arguments.repetitions or repetitions, budget, arguments.threads)
    classes = sorted(set(arguments.classes or classes_of(key)))
    jobs = full_plan(classes, [BASELINE, *TABLES[key].columns])
    plan = [replace(job, memory=False) for job in jobs]
    measured = [entry for one in backbones for entry in run_plan(one, plan, device, effort)]
    print(write_cost_table(key, Entries(measured), folder, environment(device, effort)))
    print(f"Table: {folder / f'table_{key}.md'}  JSON: {folder / f'table_{key}.json'}")


def run_corruption(arguments: argparse.Namespace) -> None:
    """Measure a corrupted prompt, report, and say where the report is.

    Raises:
        UserError: an unknown backbone.
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
    """Measure, report and say where the report is.

    Raises:
        UserError: see `check`; or the device is not there.
        UserError: an unknown backbone.
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
    """Run from a command line; returns the exit code."""
    return exit_code(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
