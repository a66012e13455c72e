"""Submit runs to an executor until all have finished or failed."""

import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from safeio.errors import UserError
from trainers.core.batch_key import batch_key

from .executors import Executor
from .runs import Run, State, Task, locate, state_of, train_seconds
from .worker import BUSY, DONE, FAILED, LOST, SKIPPED, Outcome

ATTEMPTS = 2  # of a run whose worker dies
POLL_SECONDS = 1.0  # between attempts to lock a run that another process holds

Listener = Callable[[Outcome], None]


def execute(
    runs: Sequence[Run],
    finished: set[str],
    executor: Executor,
    on_outcome: Listener,
    together: int = 1,
) -> None:
    """Execute runs in their order, and each evaluation once its model is trained.

    A failed run does not stop the others. A run whose worker dies gets a second attempt, outside of
    batches. Runs that another process holds are retried until they are free or finished.

    Args:
        runs: to be executed.
        finished: digests of runs that are finished already.
        executor: executes them.
        on_outcome: called once per run, with its last outcome.
        together: maximal number of runs in a batch.
    """
    schedule = _Schedule(runs, finished, on_outcome)
    while schedule.left():
        while schedule.ready and executor.free():
            # Batches become smaller towards the end, so that all workers end at about one time.
            share = -(-len(schedule.ready) // max(1, executor.width))
            executor.submit(schedule.next_task(min(together, share)))
        if not schedule.submitted:
            time.sleep(POLL_SECONDS)
            schedule.ready.extend(schedule.busy)
            schedule.busy.clear()
            continue
        for outcome in executor.collect(POLL_SECONDS):
            schedule.add(outcome)


class _Schedule:
    """Runs that are ready, wait for their model, are submitted, or are busy in other processes."""

    def __init__(self, runs: Sequence[Run], finished: set[str], on_outcome: Listener) -> None:
        self.on_outcome = on_outcome
        self.ready: deque[Run] = deque()
        self.waiting: dict[str, list[Run]] = {}
        self.submitted: set[str] = set()
        self.busy: list[Run] = []
        self.losses: Counter[str] = Counter()
        self._keys: dict[str, str | None] = {}
        for run in runs:
            if run.source is None or run.source.digest in finished:
                self.ready.append(run)
            else:
                self.waiting.setdefault(run.source.digest, []).append(run)

    def left(self) -> bool:
        """Return whether any run is unfinished."""
        return bool(self.ready or self.submitted or self.busy)

    def next_task(self, size: int) -> Task:
        """Return the next run, with up to size - 1 others that can be in its batch."""
        task = [self.ready.popleft()]
        key = self._key(task[0]) if size > 1 else None
        if key is not None:
            same_key = (run for run in self.ready if self._key(run) == key)
            task += itertools.islice(same_key, size - 1)
        chosen = {run.digest for run in task}
        self.ready = deque(run for run in self.ready if run.digest not in chosen)
        self.submitted |= chosen
        return tuple(task)

    def _key(self, run: Run) -> str | None:
        """Return the key that runs of one batch share; None for a run that is trained alone."""
        # A run that killed its worker must not do that to other runs.
        if run.source is not None or self.losses[run.digest]:
            return None
        if run.digest not in self._keys:
            try:
                self._keys[run.digest] = batch_key(run.cfg()).text or None
            except UserError:  # executing the run reports it
                self._keys[run.digest] = None
        return self._keys[run.digest]

    def add(self, outcome: Outcome) -> None:
        """Update the schedule with an outcome."""
        run = outcome.run
        self.submitted.discard(run.digest)
        if outcome.status == LOST and _is_done(run):  # it finished before others of its group
            outcome = Outcome(run, DONE, seconds=train_seconds(run))
        if outcome.status == BUSY:
            self.busy.append(run)
        elif outcome.status == LOST and self._try_again(run):
            self.ready.appendleft(run)
        elif outcome.status in (DONE, SKIPPED):
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
    except UserError:  # another run's folder; the next attempt reports it
        return False
