"""Resolve and run a sweep, for `nemesis sweep` and for other commands that need its runs."""

import argparse
import fnmatch
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dassl.engine.interruption import stopping_on_signals
from dassl.utils.command_line import add_set_flag
from safeio.errors import UserError
from safeio.files import PathLike, prepare_output_dir

from .executors import Executor, open_executor
from .grid import make_runs
from .progress import Estimate, Progress, list_failures, list_runs
from .runs import Run, State, folders_by_digest, locate, state_of
from .schedule import execute
from .selection import Selection
from .sweep_file import PAPER, SweepFile, read_sweep, sweep_path

STOPPED = 130


def add_sweep_flags(parser: argparse.ArgumentParser) -> None:
    """Add --profile, --root and --set."""
    add = parser.add_argument
    add("--profile", default=PAPER, help="paper (default), or one of the file's profiles")
    add("--root", help="folder of the datasets (default: data)")
    add_set_flag(parser, "a setting for all runs, which overrides the file's")


@dataclass
class Sweep:
    """The runs of a sweep and their states.

    Attributes:
        file: the sweep file.
        runs: all, in their order of execution.
        states: by digest.
        estimate: of their time.
    """

    file: SweepFile
    runs: list[Run]
    states: dict[str, State]
    estimate: Estimate

    @property
    def left(self) -> list[Run]:
        """The runs that are not finished."""
        return [run for run in self.runs if self.states[run.digest] is not State.DONE]

    def finished(self, runs: Sequence[Run]) -> set[str]:
        """Return the digests of finished runs, including sources of `runs` outside the sweep."""
        done = {digest for digest, state in self.states.items() if state is State.DONE}
        sources = [run.source for run in runs if run.source is not None]
        others = {run.digest: run for run in sources if run.digest not in self.states}
        index = folders_by_digest(sources[0].output) if others else {}
        located = (locate(run, index) for run in others.values())
        return done | {run.digest for run in located if state_of(run) is State.DONE}

    def describe(self, workers: int | None = None) -> str:
        """Return the text that `--dry-run` prints."""
        return list_runs(self.runs, self.states, self.estimate, workers or os.cpu_count() or 1)


def resolve_sweep(
    name: PathLike,
    profile: str = PAPER,
    output: Path | None = None,
    root: str | None = None,
    settings: Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
    selection: Selection | None = None,
) -> Sweep:
    """Read a sweep file, check all its runs and read their states.

    `name` is a file, or the name of one in configs/sweeps without .yaml. `only` contains prefixes
    of runs' names, which may contain `*`; empty selects all runs. For the others, see `read_sweep`
    and `make_runs`.

    Raises:
        UserError: the file or an argument is invalid.
    """
    file = read_sweep(sweep_path(name), profile, selection)
    runs = make_runs(file, output, root, settings)
    if only:
        chosen = [r for r in runs if any(fnmatch.fnmatch(r.name, f"{p}*") for p in only)]
        if not chosen:
            raise UserError(
                f"No run's name begins with {' or '.join(only)}; the first is {runs[0].name}"
            )
        runs = chosen
    index = folders_by_digest(runs[0].output)
    runs = [locate(run, index) for run in runs]
    states = {run.digest: state_of(run) for run in runs}
    estimate = Estimate()
    for run in runs:
        if states[run.digest] is State.DONE:
            estimate.add_finished(run)
    return Sweep(file, runs, states, estimate)


def run_sweep(
    sweep: Sweep,
    workers: int | None = None,
    limit: int | None = None,
    cluster: Callable[[], Executor] | None = None,
    together: int = 1,
) -> int:
    """Execute the unfinished runs of a sweep.

    Args:
        sweep: from `resolve_sweep`.
        workers: see `open_executor`.
        limit: maximal number of runs.
        cluster: opens another executor instead of local workers.
        together: see `execute`.

    Returns:
        The exit code: 0, 1 if a run failed, 130 if the sweep was stopped.
    """
    left = sweep.left[:limit]
    done_before = len(sweep.runs) - len(sweep.left)
    if not left:
        print(f"All {done_before} runs are done")
        return 0
    prepare_output_dir(left[0].output)
    executor = cluster() if cluster else open_executor(left, workers)
    progress = Progress(left, sweep.estimate, executor.width)
    stopped = False
    try:
        with stopping_on_signals():
            execute(left, sweep.finished(left), executor, progress.add, together)
    except KeyboardInterrupt:
        stopped = True
    finally:
        executor.close()
        progress.close()
    if progress.failures:
        print(list_failures(progress.failures), file=sys.stderr)
    missing = len(sweep.left) - progress.done - progress.skipped - len(progress.failures)
    print(
        f"{progress.done} runs done, {done_before + progress.skipped} were done already, "
        f"{len(progress.failures)} failed, {missing} left"
    )
    if stopped:
        print("Stopped; run the same command to resume", file=sys.stderr)
        return STOPPED
    return 1 if progress.failures else 0
