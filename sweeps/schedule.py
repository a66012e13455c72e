"""Giving out runs until all are done or have failed."""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from .pools import Pool
from .runs import Run
from .working import BUSY, DONE, FAILED, KNOWN, LOST, Outcome

ATTEMPTS = 2  # of a run whose worker dies
LOOK_AGAIN = 1.0  # seconds until a run that another process has is asked for again

Listener = Callable[[Outcome], None]


def execute(runs: Sequence[Run], finished: set[str], pool: Pool, tell: Listener) -> None:
    """Do runs in their order, an evaluation as soon as its model is trained.

    A failed run does not stop the others. One whose worker dies is tried a second time, one that
    another process is doing is waited for.

    Args:
        runs: what is to be done.
        finished: digests of runs that are done already.
        pool: does them.
        tell: called once for each run, with its last outcome.
    """
    schedule = _Schedule(runs, finished, tell)
    while schedule.left():
        while pool.free() and schedule.ready:
            run = schedule.ready.popleft()
            schedule.at_work.add(run.digest)
            pool.submit(run)
        if not schedule.at_work:
            time.sleep(LOOK_AGAIN)
            schedule.ready.extend(schedule.elsewhere)
            schedule.elsewhere.clear()
            continue
        for outcome in pool.collect(LOOK_AGAIN):
            schedule.take(outcome)


class _Schedule:
    """Which runs can be given out, which wait for others, and which are elsewhere."""

    def __init__(self, runs: Sequence[Run], finished: set[str], tell: Listener) -> None:
        self.tell = tell
        self.ready: deque[Run] = deque()
        self.waiting: dict[str, list[Run]] = {}
        self.at_work: set[str] = set()
        self.elsewhere: list[Run] = []
        self.losses: Counter[str] = Counter()
        for run in runs:
            if run.source is None or run.source.digest in finished:
                self.ready.append(run)
            else:
                self.waiting.setdefault(run.source.digest, []).append(run)

    def left(self) -> bool:
        """Whether anything is to be done or waited for."""
        return bool(self.ready or self.at_work or self.elsewhere)

    def take(self, outcome: Outcome) -> None:
        """Draw the conclusions from an outcome."""
        run = outcome.run
        self.at_work.discard(run.digest)
        if outcome.status == BUSY:
            self.elsewhere.append(run)
        elif outcome.status == LOST and self._try_again(run):
            self.ready.appendleft(run)
        elif outcome.status in (DONE, KNOWN):
            self.ready.extendleft(reversed(self.waiting.pop(run.digest, [])))
            self.tell(outcome)
        else:
            reason = outcome.reason
            if outcome.status == LOST:
                reason += f", {ATTEMPTS} times"
            self.tell(replace(outcome, status=FAILED, reason=reason))
            for test in self.waiting.pop(run.digest, []):
                self.tell(Outcome(test, FAILED, "the run whose model it tests has failed"))

    def _try_again(self, run: Run) -> bool:
        self.losses[run.digest] += 1
        return self.losses[run.digest] < ATTEMPTS
