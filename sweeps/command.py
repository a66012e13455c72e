"""What `sweep.py` does, for it and for other commands that run a sweep on the way."""

import argparse
import fnmatch
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from safeio.errors import UserError
from safeio.files import PathLike, prepare_output_dir

from .executors import Executor, open_executor
from .grid import make_runs
from .progress import Estimate, Progress, list_failures, list_runs
from .runs import Run, State, folders_by_digest, locate, state_of
from .schedule import execute
from .sweep_file import PAPER, read_sweep

STOPPED = 130


def add_set_flag(parser: argparse.ArgumentParser, text: str) -> None:
    """Add --set KEY VALUE, which may be given again."""
    pair = ("KEY", "VALUE")
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=pair, help=text)


@dataclass
class Sweep:
    """The runs of a sweep and what is left of them.

    Attributes:
        runs: all, in the order in which they are done.
        states: by digest.
        estimate: of their time.
    """

    runs: list[Run]
    states: dict[str, State]
    estimate: Estimate

    @property
    def left(self) -> list[Run]:
        """Those that are not done."""
        return [run for run in self.runs if self.states[run.digest] is not State.DONE]

    def finished(self, runs: Sequence[Run]) -> set[str]:
        """Digests of what is done, with the sources of these runs that are not in the sweep."""
        found = {digest for digest, state in self.states.items() if state is State.DONE}
        sources = [run.source for run in runs if run.source is not None]
        return found | {one.digest for one in sources if state_of(locate(one)) is State.DONE}


def resolve_sweep(
    path: PathLike,
    bench: str = PAPER,
    output: Path | None = None,
    root: str | None = None,
    settings: Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
) -> Sweep:
    """Read a sweep file, check all its runs and look what is done.

    Args:
        path: the file.
        bench: see `read_sweep`.
        output: see `make_runs`.
        root: see `make_runs`.
        settings: see `make_runs`.
        only: beginnings of the runs' names, which may hold `*`; empty means all.

    Raises:
        UserError: something in the file or the arguments is wrong.
    """
    runs = make_runs(read_sweep(path, bench), output, root, settings)
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
    return Sweep(runs, states, estimate)


def run_sweep(
    sweep: Sweep,
    workers: int | None = None,
    limit: int | None = None,
    cluster: Callable[[], Executor] | None = None,
    together: int = 1,
) -> int:
    """Do what is left of a sweep.

    Args:
        sweep: from `resolve_sweep`.
        workers: see `open_executor`.
        limit: at most so many runs.
        cluster: opens an executor elsewhere, in the place of the workers.
        together: see `execute`.

    Returns:
        The exit code: 0, 1 when a run failed, 130 when it was stopped.
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
        with _stopping_on_signals():
            execute(left, sweep.finished(left), executor, progress.take, together)
    except KeyboardInterrupt:
        stopped = True
    finally:
        executor.close()
        progress.close()
    if progress.failures:
        print(list_failures(progress.failures), file=sys.stderr)
    missing = len(sweep.left) - progress.done - progress.known - len(progress.failures)
    print(
        f"{progress.done} runs done, {done_before + progress.known} were done already, "
        f"{len(progress.failures)} failed, {missing} left"
    )
    if stopped:
        print("Stopped; start it again to go on", file=sys.stderr)
        return STOPPED
    return 1 if progress.failures else 0


def describe_sweep(sweep: Sweep, workers: int | None = None) -> str:
    """Return the text that `--dry-run` prints."""
    return list_runs(sweep.runs, sweep.states, sweep.estimate, workers or os.cpu_count() or 1)


@contextmanager
def _stopping_on_signals() -> Iterator[None]:
    """Let SIGTERM stop the sweep as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        del number, frame
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
