"""Run benchmark jobs and collect their entries."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from tqdm import tqdm

from .cases import CASES, REFERENCE, REPOSITORY, SIDES, Setting, Workload, make_side
from .measure import Peak, peak_memory, time_by_turns, why_skipped
from .synthetic import Backbone, class_names


@dataclass(frozen=True)
class Job:
    """A case of one side on a number of classes, with the quantities to measure."""

    classes: int
    case: str
    side: str
    timed: bool = True
    memory: bool = True


@dataclass
class Entry:
    """The measurements of a case on one side.

    Attributes:
        backbone: its name.
        classes: C.
        case: key of `CASES`.
        side: `plain` (reference implementation) or `ours` (this repository).
        seconds: median, per prompt if the case has several; None if not timed.
        runs: seconds of every repetition, likewise.
        above: peak memory above the loaded model in bytes.
        total: total peak memory in bytes.
        skipped: why it was not measured; "" otherwise.
    """

    backbone: str
    classes: int
    case: str
    side: str
    seconds: float | None = None
    runs: list[float] = field(default_factory=list)
    above: int | None = None
    total: int | None = None
    skipped: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the entry of bench.json."""
        return asdict(self)


@dataclass(frozen=True)
class Effort:
    """Repetitions, time budget and threads of a measurement; see `time_by_turns`."""

    repetitions: int
    budget: float
    threads: int


def full_jobs(classes: Sequence[int], cases: Sequence[str]) -> list[Job]:
    """Return jobs for every case on both sides; a shared reference workload is measured once."""
    return [
        Job(count, case, side)
        for count in classes
        for case in cases
        for side in SIDES
        if side == REPOSITORY or CASES[case].reference_as not in cases
    ]


def quick_jobs(classes: int = 100) -> list[Job]:
    """Return the jobs for the part of the target table that takes two minutes on two cores."""
    sides = {
        "text_forward": SIDES,
        "text_backward": SIDES,
        "text_corrupted": (REPOSITORY,),
        "coop": SIDES,
        "pan1": (REPOSITORY,),
        "pan16": (REPOSITORY,),
        "coop_cached": (REPOSITORY,),
    }
    return [Job(classes, case, side, memory=False) for case in sides for side in sides[case]]


def target_jobs(few: int = 100, many: int = 1000) -> list[Job]:
    """Return the jobs for the whole target table."""
    jobs = [replace(job, memory=job.case == "coop") for job in quick_jobs(few)]
    jobs += [
        Job(few, case, REPOSITORY, memory=False) for case in ("evaluation", "evaluation_again")
    ]
    jobs += [Job(many, "text_forward", side, memory=False) for side in SIDES]
    return [*jobs, Job(many, "coop", REPOSITORY, timed=False)]


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
    pairs = []
    for job in jobs:
        entry = Entry(setting.backbone.name, job.classes, job.case, job.side)
        entry.skipped = why_skipped(CASES[job.case], job.side, setting)
        if job.memory and not entry.skipped:
            _measure_memory(entry, setting, effort)
        bar.update(job.memory)
        if entry.skipped:
            bar.update(job.timed * effort.repetitions)
        pairs.append((job, entry))
    timed = [entry for job, entry in pairs if job.timed and not entry.skipped]
    _measure_seconds(timed, setting, effort, bar)
    return [entry for _, entry in pairs]


def _measure_memory(entry: Entry, setting: Setting, effort: Effort) -> None:
    peak = peak_memory(entry.case, entry.side, setting, effort.threads)
    if isinstance(peak, Peak):
        entry.above, entry.total = peak.above, peak.total
    else:
        entry.skipped = peak


def _measure_seconds(entries: Sequence[Entry], setting: Setting, effort: Effort, bar: Any) -> None:
    sides = {side: make_side(side, setting) for side in {entry.side for entry in entries}}
    workloads: dict[str, Workload] = {
        f"{entry.case} {entry.side}": sides[entry.side].workload(CASES[entry.case])
        for entry in entries
    }
    timings = time_by_turns(
        workloads, effort.repetitions, effort.budget, setting.device, lambda _: bar.update()
    )
    for entry, timing in zip(entries, timings.values(), strict=True):
        prompts = CASES[entry.case].prompts if entry.side == REPOSITORY else 1
        entry.seconds = timing.median / prompts
        entry.runs = [seconds / prompts for seconds in timing.seconds]


class Entries:
    """Lookup of entries; a reference workload shared by two cases is found under both."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.all = list(entries)
        self._by_key = {(e.backbone, e.classes, e.case, e.side): e for e in self.all}

    def find(self, backbone: str, classes: int, case: str, side: str) -> Entry | None:
        """Return the entry, or None if it was not measured."""
        entry = self._by_key.get((backbone, classes, case, side))
        if entry is None and side == REFERENCE and CASES[case].reference_as:
            entry = self._by_key.get((backbone, classes, CASES[case].reference_as or "", side))
        return entry
