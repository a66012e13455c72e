"""Measure the cost of a step: this repository against a reference implementation, in one run."""

import argparse
import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from dassl.config import load_config
from dassl.utils import choose_device
from datasets.imagenet import imagenet_classnames
from safeio.errors import UserError

from .cases import CASES, REPOSITORY, SIDES, Setting, make_side, make_workload
from .cost_report import (
    BASELINE,
    FEW,
    MANY,
    TABLES,
    Entries,
    Entry,
    cost_report,
    read_paper,
    table_report,
)
from .launches import count_launches
from .measure import Effort, Peak, peak_memory, time_by_turns, why_skipped
from .parity import parity
from .report import Report, environment
from .synthetic import Backbone, class_names

BACKBONES = ("RN50", "ViT-B/16")
CLASSES = (10, 100, 1000)
# Repetitions of each workload, and seconds after which it skips the remaining ones.
EFFORT = {"quick": (2, 5.0), "targets": (15, 20.0), "full": (5, 90.0)}
CHECKED = ("coop",)  # the tests check every method
COUNTED = 5.0  # seconds of the slowest workloads whose operators are counted in one more run


@dataclass(frozen=True)
class Job:
    """A case of one side on a number of classes, with the quantities to measure."""

    classes: int
    case: str
    side: str
    timed: bool = True
    memory: bool = True


def add_measuring_flags(add: Callable[..., Any]) -> None:
    """Add the flags of all benchmarks that measure CLIP models."""
    add("--backbones", nargs="+", metavar="NAME", help="CLIP architectures, files, or mini")
    add("--repetitions", type=int, metavar="N", help="of each workload")
    add("--threads", type=int, default=torch.get_num_threads(), help="PyTorch's CPU threads")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="most targets: RN50, 100 classes")
    size.add_argument(
        "--targets", action="store_true", help="all targets: also memory and C = 1000"
    )
    size.add_argument("--table", choices=TABLES, help="the paper's table of costs, measured")
    add = parser.add_argument
    text = "numbers of classes, default 10 100 1000"
    add("--classes", nargs="+", type=int, metavar="C", help=text)
    add("--cases", nargs="+", metavar="CASE", help=f"some of: {' '.join(CASES)}")
    add_measuring_flags(add)


def check(arguments: argparse.Namespace) -> torch.device:
    """Check the values and the combination of flags, and return the device.

    Raises:
        UserError: a value is not accepted, flags contradict each other, or there is no such device.
    """
    names = len(imagenet_classnames())
    for key in ("repetitions", "threads"):
        value = getattr(arguments, key)
        if value is not None and value < 1:
            raise UserError(f"--{key} is {value}, but must be at least 1")
    for count in getattr(arguments, "classes", None) or ():
        if not 1 <= count <= names:
            raise UserError(
                f"--classes is {count}, but must be from 1 to {names}, ImageNet's names"
            )
    for case in getattr(arguments, "cases", None) or ():
        if case not in CASES:
            near = difflib.get_close_matches(case, CASES, n=1, cutoff=0.0)[0]
            raise UserError(
                f"--cases: {case!r} is unknown; did you mean {near!r}? "
                f"Choose from {', '.join(CASES)}"
            )
    return choose_device(load_config(opts=["DEVICE", arguments.device]))


def run(arguments: argparse.Namespace) -> Report:
    """Measure the selected cases on both sides and return the report.

    Raises:
        UserError: see `check`; a selection contradicts --quick, --targets or --table; or a
            backbone is unknown.
    """
    device = check(arguments)
    fixed = arguments.quick or arguments.targets
    if arguments.table and arguments.cases:
        raise UserError("--table determines the cases; leave out --cases")
    if fixed and (arguments.backbones or arguments.classes or arguments.cases):
        raise UserError(
            "--quick and --targets determine the measurements; leave out --backbones, --classes "
            "and --cases"
        )
    names = arguments.backbones or (BACKBONES[:1] if fixed or arguments.table else BACKBONES)
    backbones = [Backbone.find(name) for name in dict.fromkeys(names)]
    size = "quick" if arguments.quick else "targets" if arguments.targets else "full"
    repetitions, budget = EFFORT[size]
    effort = Effort(arguments.repetitions or repetitions, budget, arguments.threads)
    settings = environment(device, threads=effort.threads, repetitions=effort.repetitions)
    torch.set_num_threads(effort.threads)
    jobs = choose_jobs(arguments)
    print(f"{len(jobs) * len(backbones)} measurements on {device} ...", flush=True)

    measured, differences = [], {}
    for backbone in backbones:
        if not arguments.table:
            pair = Setting(backbone, class_names(3), device)
            differences[backbone.name] = max(parity(pair, CHECKED).values())
        measured += run_jobs(backbone, jobs, device, effort)
    if arguments.table:
        return table_report(arguments.table, Entries(measured), settings)
    return cost_report(Entries(measured), settings, differences)


def choose_jobs(arguments: argparse.Namespace) -> list[Job]:
    """Return the jobs that the flags select."""
    if arguments.quick:
        return quick_jobs()
    if arguments.targets:
        return target_jobs()
    if not arguments.table:
        classes = sorted(set(arguments.classes or CLASSES))
        return full_jobs(classes, list(dict.fromkeys(arguments.cases or CASES)))
    key = arguments.table
    counts = arguments.classes or [int(row["classes"]) for row in read_paper(key)]
    jobs = full_jobs(sorted(set(counts)), [BASELINE, *TABLES[key].columns])
    return [replace(job, memory=False) for job in jobs]


def full_jobs(classes: Sequence[int], cases: Sequence[str]) -> list[Job]:
    """Return jobs for every case on both sides; a shared reference workload is measured once."""
    return [
        Job(count, case, side)
        for count in classes
        for case in cases
        for side in SIDES
        if side == REPOSITORY or CASES[case].reference_as not in cases
    ]


def quick_jobs() -> list[Job]:
    """Return the jobs for the part of the target table that takes two minutes on two cores."""
    both = [(case, side) for case in ("text_forward", "text_backward", "coop") for side in SIDES]
    own = ("text_corrupted", "pan1", "pan16", "coop_cached")
    pairs = [*both, *((case, REPOSITORY) for case in own)]
    return [Job(FEW, case, side, memory=False) for case, side in pairs]


def target_jobs() -> list[Job]:
    """Return the jobs for the whole target table."""
    jobs = [replace(job, memory=job.case == "coop") for job in quick_jobs()]
    again = ("evaluation", "evaluation_again")
    jobs += [Job(FEW, case, REPOSITORY, memory=False) for case in again]
    jobs += [Job(MANY, "text_forward", side, memory=False) for side in SIDES]
    return [*jobs, Job(MANY, "coop", REPOSITORY, timed=False)]


def run_jobs(
    backbone: Backbone, jobs: Iterable[Job], device: torch.device, effort: Effort
) -> list[Entry]:
    """Measure every job: first the memory of each, then the seconds of all in rounds."""
    jobs = list(jobs)
    entries = []
    steps = sum(job.timed * effort.repetitions + job.memory for job in jobs)
    with tqdm(total=steps, unit="run", disable=None, desc=backbone.name) as bar:
        for count in dict.fromkeys(job.classes for job in jobs):
            setting = Setting(backbone, class_names(count), device)
            group = [job for job in jobs if job.classes == count]
            entries += _run_group(setting, group, effort, bar)
    return entries


def _run_group(setting: Setting, jobs: Sequence[Job], effort: Effort, bar: Any) -> list[Entry]:
    entries, timed = [], []
    for job in jobs:
        entry = Entry(setting.backbone.name, job.classes, job.case, job.side)
        entry.skipped = why_skipped(CASES[job.case], job.side, setting)
        if job.memory and not entry.skipped:
            make = partial(make_workload, job.case, job.side, setting)
            peak = peak_memory(make, setting.device, effort.threads)
            if isinstance(peak, Peak):
                entry.above, entry.total = peak.above, peak.total
            else:
                entry.skipped = peak
        bar.update(job.memory)
        entries.append(entry)
        if job.timed and not entry.skipped:
            timed.append(entry)
    sides = {side: make_side(side, setting) for side in {entry.side for entry in timed}}
    workloads = {
        f"{entry.case} {entry.side}": sides[entry.side].workload(CASES[entry.case])
        for entry in timed
    }
    seconds = time_by_turns(workloads, effort, setting.device, bar.update)
    for entry, taken in zip(timed, seconds.values(), strict=True):
        prompts = CASES[entry.case].prompts if entry.side == REPOSITORY else 1
        entry.runs = [one / prompts for one in taken]
        entry.seconds = median(entry.runs)
        if max(taken) < COUNTED:
            workload = workloads[f"{entry.case} {entry.side}"]
            launches = count_launches(workload, setting.device)
            entry.launches, entry.waits = launches.issued, launches.waits
            entry.busy = launches.busy
    return entries
