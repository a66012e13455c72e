"""Giving out runs until all are done or have failed."""

import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from safeio.errors import UserError
from trainers.core.vectorised import RUNS_AT_ONCE, vector_key

from .executors import Executor
from .runs import Run, State, Task, locate, state_of, train_seconds
from .worker import BUSY, DONE, FAILED, KNOWN, LOST, Outcome

ATTEMPTS = 2  # of a run whose worker dies
LOOK_AGAIN = 1.0  # seconds until a run that another process has is asked for again

Listener = Callable[[Outcome], None]


def execute(
    runs: Sequence[Run],
    finished: set[str],
    executor: Executor,
    on_outcome: Listener,
    together: int = 1,
) -> None:
    """Do runs in their order, an evaluation as soon as its model is trained.

    A failed run does not stop the others. One whose worker dies is tried a second time, by itself;
    one that another process is doing is waited for.

    Args:
        runs: what is to be done.
        finished: digests of runs that are done already.
        executor: does them.
        on_outcome: called once for each run, with its last outcome.
        together: so many runs at most are trained together, where they can be.
    """
    together = min(together, RUNS_AT_ONCE.get(executor.device, together))
    schedule = _Schedule(runs, finished, on_outcome)
    while schedule.left():
        while schedule.ready and (free := executor.free()):
            # No more than leaves something to do for everybody.
            share = -(-len(schedule.ready) // free)
            executor.submit(schedule.next_task(min(together, share)))
        if not schedule.at_work:
            time.sleep(LOOK_AGAIN)
            schedule.ready.extend(schedule.elsewhere)
            schedule.elsewhere.clear()
            continue
        for outcome in executor.collect(LOOK_AGAIN):
            schedule.take(outcome)


class _Schedule:
    """Which runs can be given out, which wait for others, and which are elsewhere."""

    def __init__(self, runs: Sequence[Run], finished: set[str], on_outcome: Listener) -> None:
        self.on_outcome = on_outcome
        self.ready: deque[Run] = deque()
        self.waiting: dict[str, list[Run]] = {}
        self.at_work: set[str] = set()
        self.elsewhere: list[Run] = []
        self.losses: Counter[str] = Counter()
        self._keys: dict[str, str | None] = {}
        for run in runs:
            if run.source is None or run.source.digest in finished:
                self.ready.append(run)
            else:
                self.waiting.setdefault(run.source.digest, []).append(run)

    def left(self) -> bool:
        """Whether anything is to be done or waited for."""
        return bool(self.ready or self.at_work or self.elsewhere)

    def next_task(self, size: int) -> Task:
        """Give out the next run, with those behind it that can be trained together with it."""
        task = [self.ready.popleft()]
        key = self._key(task[0]) if size > 1 else None
        if key is not None:
            alike = (run for run in self.ready if self._key(run) == key)
            task += itertools.islice(alike, size - 1)
        chosen = {run.digest for run in task}
        self.ready = deque(run for run in self.ready if run.digest not in chosen)
        self.at_work |= chosen
        return tuple(task)

    def _key(self, run: Run) -> str | None:
        """What runs that are trained together have in common; None for one that goes alone."""
        # What killed a worker once must not take others with it again.
        if run.source is not None or self.losses[run.digest]:
            return None
        if run.digest not in self._keys:
            try:
                self._keys[run.digest] = vector_key(run.cfg())
            except UserError:  # it will say so when it is done
                self._keys[run.digest] = None
        return self._keys[run.digest]

    def take(self, outcome: Outcome) -> None:
        """Draw the conclusions from an outcome."""
        run = outcome.run
        self.at_work.discard(run.digest)
        if outcome.status == LOST and _is_done(run):  # in a run group whose others were not
            outcome = Outcome(run, DONE, seconds=train_seconds(run))
        if outcome.status == BUSY:
            self.elsewhere.append(run)
        elif outcome.status == LOST and self._try_again(run):
            self.ready.appendleft(run)
        elif outcome.status in (DONE, KNOWN):
            self.ready.extendleft(reversed(self.waiting.pop(run.digest, [])))
            self.on_outcome(outcome)
        else:
            reason = outcome.reason
            if outcome.status == LOST:
                reason += f", {ATTEMPTS} times"
            self.on_outcome(replace(outcome, status=FAILED, reason=reason))
            for test in self.waiting.pop(run.digest, []):
                self.on_outcome(Outcome(test, FAILED, "the run whose model it tests has failed"))

    def _try_again(self, run: Run) -> bool:
        self.losses[run.digest] += 1
        return self.losses[run.digest] < ATTEMPTS


def _is_done(run: Run) -> bool:
    try:
        return state_of(locate(run)) is State.DONE
    except UserError:  # another run's folder: the next attempt will say so
        return False
