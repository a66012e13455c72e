"""Print a sweep's runs, progress, time estimate and failures."""

import datetime
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .runs import Run, State, locate, newest_log, train_seconds
from .worker import DONE, FAILED, SKIPPED, Outcome

LOG_LINES = 5


class Estimate:
    """Estimates the time of runs from finished runs of the same method and shots."""

    def __init__(self) -> None:
        self._known: defaultdict[tuple[Any, ...], list[float]] = defaultdict(list)

    def add(self, run: Run, seconds: float) -> None:
        """Add the time of a finished run."""
        for key in _similarity_keys(run):
            self._known[key].append(seconds)

    def add_finished(self, run: Run) -> None:
        """Add the time that the results of an earlier run record."""
        seconds = train_seconds(run)
        if seconds:
            self.add(run, seconds)

    def of(self, run: Run) -> float | None:
        """Return the estimated seconds of a run; None if no similar run is finished."""
        for key in _similarity_keys(run):
            if key in self._known:
                return statistics.fmean(self._known[key])
        return None

    def describe(self, runs: Sequence[Run], workers: int) -> str:
        """Describe the estimated time of all given runs.

        Args:
            runs: unfinished runs.
            workers: how many run at a time.
        """
        guesses = [self.of(run) for run in runs]
        known = [guess for guess in guesses if guess is not None]
        if not known:
            return "unknown" if runs else "0:00:00"
        # Workers share the total, but the longest run is a lower bound.
        seconds = max(sum(known) / max(1, workers), max(known))
        text = str(datetime.timedelta(seconds=round(seconds)))
        unknown = len(guesses) - len(known)
        return f"{text} and {unknown} runs of unknown length" if unknown else text


def _similarity_keys(run: Run) -> tuple[tuple[Any, ...], ...]:
    """Return keys that similar runs share, the most specific first."""
    test = run.source is not None
    return ((test, run.method, run.shots, run.dataset), (test, run.method, run.shots))


class Progress:
    """Progress bar over the runs to be executed; prints nothing without a terminal."""

    def __init__(self, runs: Sequence[Run], estimate: Estimate, workers: int) -> None:
        self._left = {run.digest: run for run in runs}
        self._estimate = estimate
        self._workers = workers
        self._bar = tqdm(total=len(runs), unit="run", disable=None)
        self.failures: list[Outcome] = []
        self.done = 0
        self.skipped = 0

    def add(self, outcome: Outcome) -> None:
        """Count an outcome and update the bar."""
        self._left.pop(outcome.run.digest, None)
        if outcome.status == DONE:
            self.done += 1
            self._estimate.add(outcome.run, outcome.seconds)
        elif outcome.status == SKIPPED:
            self.skipped += 1
        elif outcome.status == FAILED:
            self.failures.append(outcome)
        if not self._bar.disable:
            left = self._estimate.describe(list(self._left.values()), self._workers)
            self._bar.set_postfix_str(f"left: {left}", refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Close the bar."""
        self._bar.close()


def list_runs(
    runs: Sequence[Run], states: Mapping[str, State], estimate: Estimate, workers: int
) -> str:
    """Return one line per run, then the counts and the estimated time."""
    lines = [f"{states[run.digest].value:9}  {run.name}" for run in runs]
    todo = [run for run in runs if states[run.digest] is not State.DONE]
    resumed = sum(states[run.digest] is State.RESUME for run in runs)
    lines.append(
        f"{len(runs)} runs: {len(runs) - len(todo)} done, {resumed} to resume, "
        f"{len(todo) - resumed} to do; estimated time with {workers} at a time: "
        + estimate.describe(todo, workers)
    )
    return "\n".join(lines)


def list_failures(failures: Iterable[Outcome]) -> str:
    """Return each failed run with its reason and the last lines of its log."""
    parts = []
    for outcome in failures:
        parts.append(f"failed: {outcome.run.name}: {outcome.reason}")
        parts += [f"    {line}" for line in last_lines(locate(outcome.run).folder)]
    return "\n".join(parts)


def last_lines(folder: Path) -> list[str]:
    """Return the last lines of a run's newest log; [] without a log."""
    try:
        log = newest_log(folder)
        text = log.read_text(encoding="utf-8", errors="replace") if log else ""
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-LOG_LINES:]
