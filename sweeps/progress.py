"""The printed side of a sweep: the list of its runs, the progress, the failures."""

import datetime
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .runs import Run, State, locate, newest_log, train_seconds
from .worker import DONE, FAILED, KNOWN, Outcome

LOG_LINES = 5


class Estimate:
    """How long runs take, from those of the same method and shots that are done."""

    def __init__(self) -> None:
        self._known: defaultdict[tuple[Any, ...], list[float]] = defaultdict(list)

    def add(self, run: Run, seconds: float) -> None:
        """Learn from a run that took so long."""
        for key in _likenesses(run):
            self._known[key].append(seconds)

    def add_finished(self, run: Run) -> None:
        """Learn from the results of a run that was done earlier."""
        seconds = train_seconds(run)
        if seconds:
            self.add(run, seconds)

    def of(self, run: Run) -> float | None:
        """Seconds that a run takes; None where nothing is known."""
        for key in _likenesses(run):
            if key in self._known:
                return statistics.fmean(self._known[key])
        return None

    def describe(self, runs: Sequence[Run], workers: int) -> str:
        """The time for all of these runs, in words.

        Args:
            runs: what is left.
            workers: how many are done at a time.
        """
        guesses = [self.of(run) for run in runs]
        known = [guess for guess in guesses if guess is not None]
        if not known:
            return "unknown" if runs else "0:00:00"
        # As many seconds as there are workers pass at once, but no run is faster than it is.
        seconds = max(sum(known) / max(1, workers), max(known))
        text = str(datetime.timedelta(seconds=round(seconds)))
        unknown = len(guesses) - len(known)
        return f"{text} and {unknown} runs of unknown length" if unknown else text


def _likenesses(run: Run) -> tuple[tuple[Any, ...], ...]:
    """From like to less like; a test is never like a training."""
    test = run.source is not None
    return ((test, run.method, run.shots, run.dataset), (test, run.method, run.shots))


class Progress:
    """A bar over all runs of a sweep; silent where there is no terminal.

    Args:
        runs: those that are to be done.
        estimate: of their time.
        workers: how many are done at a time.
    """

    def __init__(self, runs: Sequence[Run], estimate: Estimate, workers: int) -> None:
        self._left = {run.digest: run for run in runs}
        self._estimate = estimate
        self._workers = workers
        self._bar = tqdm(total=len(runs), unit="run", disable=None)
        self.failures: list[Outcome] = []
        self.done = 0
        self.known = 0

    def take(self, outcome: Outcome) -> None:
        """Show an outcome."""
        self._left.pop(outcome.run.digest, None)
        if outcome.status == DONE:
            self.done += 1
            self._estimate.add(outcome.run, outcome.seconds)
        elif outcome.status == KNOWN:
            self.known += 1
        elif outcome.status == FAILED:
            self.failures.append(outcome)
        left = self._estimate.describe(list(self._left.values()), self._workers)
        self._bar.set_postfix_str(f"left: {left}", refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Leave the terminal to others."""
        self._bar.close()


def list_runs(
    runs: Sequence[Run], states: Mapping[str, State], estimate: Estimate, workers: int
) -> str:
    """One line a run, and what is left."""
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
    """Each failed run with its reason and the last lines of its log."""
    parts = []
    for outcome in failures:
        parts.append(f"failed: {outcome.run.name}: {outcome.reason}")
        parts += [f"    {line}" for line in last_lines(locate(outcome.run).folder)]
    return "\n".join(parts)


def last_lines(folder: Path) -> list[str]:
    """The end of a run's newest log; nothing without one."""
    try:
        log = newest_log(folder)
        text = log.read_text(encoding="utf-8", errors="replace") if log else ""
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-LOG_LINES:]
