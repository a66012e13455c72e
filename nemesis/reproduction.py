"""State of every table and figure of the paper: data, weights, runs, time left, agreement."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from clip.download import DEFAULT_ROOT, MODELS
from clip.weights import FILE_SUFFIXES
from safeio.errors import UserError

from .catalogue import Facts, datasets
from .commands.report import sweep_status
from .report.accuracy import make_tables
from .report.paper_comparison import find_matches
from .report.reading import read_runs
from .report.results import in_row_order, natural_order
from .sweeps.command import Sweep, resolve_sweep
from .sweeps.grid import ROOT
from .sweeps.progress import Estimate
from .sweeps.runs import Run, State
from .sweeps.sweep_file import PAPER

SCRIPTS = ROOT / "scripts"
# The sweep that a script runs: `sweep NAME "$@"` or `study FOLDER NAME "$@"`.
_SWEEP = re.compile(r"^(?:sweep|study \w+) (\w+)", re.MULTILINE)
_COMMENT = re.compile(r"^# (.+(?:\n# .+)*)", re.MULTILINE)
MRPC = "mrpc/msr_paraphrase_train.txt"  # Table A11 reads it; there is no loader


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper.

    Attributes:
        name: its script without .sh, such as table_a5.
        folder: of its report.
        title: the sweep's title, or the script's description.
        sweep: its runs; None for a script without a sweep, or whose sweep cannot be read.
        fault: why the sweep cannot be read; "" if it can.
        data: entries of `nemesis.catalogue.datasets` that it needs.
        weights: the backbones that it needs.
        agrees: how many numbers of the paper's table are within one standard deviation, and of how
            many; (0, 0) if none can be compared.
    """

    name: str
    folder: Path
    title: str
    sweep: Sweep | None = None
    fault: str = ""
    data: Sequence[Facts] = ()
    weights: Sequence[str] = ()
    agrees: tuple[int, int] = (0, 0)

    @property
    def missing_data(self) -> list[str]:
        """The datasets that are not complete."""
        return [one["name"] for one in self.data if one["state"] == "missing"]

    @property
    def missing_weights(self) -> list[str]:
        """The backbones whose weights are not on this machine."""
        return [name for name in self.weights if not has_weights(name)]

    @property
    def report(self) -> Path | None:
        """The finished report or table; None if there is none."""
        files = (self.folder / name for name in ("report.html", f"{self.name}.md"))
        return next((file for file in files if file.is_file()), None)

    @property
    def runs(self) -> tuple[int, int]:
        """How many runs are done and left; a script without a sweep counts as one."""
        if self.sweep is None:
            return (0, 0) if self.fault else (1, 0) if self.report else (0, 1)
        left = len(self.sweep.left)
        return len(self.sweep.runs) - left, left


@dataclass
class Reproduction:
    """All tables and figures.

    Attributes:
        experiments: in the paper's order, tables after figures.
        estimate: of the time of runs, from the finished runs of all tables.
    """

    experiments: list[Experiment]
    estimate: Estimate = field(default_factory=Estimate)

    def __post_init__(self) -> None:
        states = self._states()
        for run in self.all_runs():
            if states[run.digest] is State.DONE:
                self.estimate.add_finished(run)

    def all_runs(self) -> list[Run]:
        """The distinct runs of all tables."""
        sweeps = [one.sweep for one in self.experiments if one.sweep]
        return list({run.digest: run for sweep in sweeps for run in sweep.runs}.values())

    def left(self) -> list[Run]:
        """The distinct runs that are not finished."""
        states = self._states()
        return [run for run in self.all_runs() if states[run.digest] is not State.DONE]

    def _states(self) -> dict[str, State]:
        sweeps = [one.sweep for one in self.experiments if one.sweep]
        return {digest: state for sweep in sweeps for digest, state in sweep.states.items()}


def find_reproduction(
    profile: str, output: Path | None = None, root: str | None = None
) -> Reproduction:
    """Return the state of every script scripts/table_*.sh and figure_*.sh.

    Args:
        profile: of the sweeps.
        output: overrides the sweeps' output folder.
        root: overrides DATASET.ROOT.

    Raises:
        UserError: no sweep has the profile, or the first fault if none can be read.
    """
    paths = [path for stem in ("figure", "table") for path in SCRIPTS.glob(f"{stem}*_*.sh")]
    names = sorted((path.stem for path in paths), key=natural_order)
    known = {one["dataset"]: one for one in datasets(root or "data")}
    found = [_experiment(name, profile, output, root, known) for name in names]
    if all(one.sweep is None for one in found):
        raise UserError(next(one.fault for one in found if one.fault))
    reports = next(one.folder.parent for one in found if one.sweep)
    for index, one in enumerate(found):
        if one.sweep is None:
            found[index] = replace(one, folder=reports / one.name)
    a11 = names.index("table_a11")
    missing = not (Path(root or "data") / MRPC).is_file()
    mrpc = {"name": "mrpc", "state": "missing" if missing else "complete", "missing": [MRPC]}
    found[a11] = replace(found[a11], data=[mrpc])
    return Reproduction(found if profile == PAPER else [*found[:a11], *found[a11 + 1 :]])


def _experiment(
    name: str, profile: str, output: Path | None, root: str | None, known: dict[str, Facts]
) -> Experiment:
    text = (SCRIPTS / f"{name}.sh").read_text(encoding="utf-8")
    title = _COMMENT.findall(text)[0].replace("\n# ", " ").partition(": ")[2]
    title = re.split(r"[.;](?:\s|$)", title)[0]
    match = _SWEEP.search(text)
    if match is None:
        return Experiment(name, Path(), title)
    try:
        sweep = resolve_sweep(match[1], profile, output, root)
        agrees = agreement(sweep)
    except UserError as error:
        return Experiment(name, Path(), title, fault=str(error))
    configs = [run.config for run in sweep.runs]
    used = sorted({config["DATASET"]["NAME"] for config in configs})
    weights = sorted({config["MODEL"]["BACKBONE"]["NAME"] for config in configs})
    folder = sweep.runs[0].output / "tables" / name
    data = [known[dataset] for dataset in used if dataset in known]
    return Experiment(name, folder, title, sweep, "", data, weights, agrees)


def has_weights(name: str) -> bool:
    """Return whether weights are on this machine; names that other packages load count as present.

    OpenAI's are looked for in the default folder, without their checksum.
    """
    if name in MODELS:
        return (DEFAULT_ROOT.expanduser() / MODELS[name].rpartition("/")[2]).is_file()
    return Path(name).suffix not in FILE_SUFFIXES or Path(name).expanduser().exists()


def agreement(sweep: Sweep) -> tuple[int, int]:
    """Return how many of the paper's numbers agree with a sweep's finished runs, and of how many.

    A number agrees if it is within one standard deviation of the mean over the seeds.

    Raises:
        UserError: two finished runs have the same cell and seed.
    """
    status = sweep_status(sweep)
    if not status.done or not sweep.file.paper:
        return 0, 0
    index = read_runs(list(status.done))
    runs = in_row_order([(status.done[run["folder"]], run) for run in index.runs], status.rows)
    matches = find_matches(runs, make_tables(runs).scores)
    own = [one.within_one_std for one in matches if one.paper.table in sweep.file.paper]
    known = [agrees for agrees in own if agrees is not None]
    return sum(known), len(known)
