"""Run jobs in turns in one process and batch the work that they have in common.

Each job is an ordinary function in its own thread, but only one job runs at a time, until it
requests batched work. When all jobs have sent a request or ended, equal requests are processed at
once, outside of the jobs. Global random generators and standard output are saved and restored for
each job, so that its results are the same as in a process of its own.
"""

import os
import sys
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from ..utils import generator_states, set_generator_states

# From the contents of equal requests to one answer for each.
Work = Callable[[list[Any]], Sequence[Any]]


class Stopped(BaseException):
    """Raised in a job when `Lockstep.run` is interrupted."""


@dataclass
class _Request:
    stage: int
    key: Hashable
    content: Any
    work: Work


class _Member:
    """A job with its thread, its request, and its global state while another job runs."""

    def __init__(self, job: Callable[[], Any], stdout: TextIO) -> None:
        self.job = job
        self.thread: threading.Thread | None = None
        self.turn = threading.Lock()
        self.turn.acquire()
        self.stdout = stdout
        self.generators = generator_states()
        self.request: _Request | None = None
        self.answer: Any = None
        self.error: BaseException | None = None  # of the batched work
        self.ended = False
        self.outcome: Any = None

    @property
    def live(self) -> bool:
        return self.thread is not None and not self.ended


class Lockstep:
    """Runs jobs in turns until all have ended."""

    def __init__(self) -> None:
        self._members: list[_Member] = []
        self._active: _Member | None = None
        self._handed_back = threading.Lock()
        self._handed_back.acquire()
        self._stopped = False

    def run(self, jobs: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run all jobs; their output is dropped unless they redirect standard output themselves.

        Args:
            jobs: functions that may call `join`.

        Returns:
            The result of each job, or the exception that ended it, which does not stop the others.
        """
        stdout, generators = sys.stdout, generator_states()
        with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123
            self._members = [_Member(job, nowhere) for job in jobs]
            try:
                for member in self._members:
                    self._give_turn(member)
                while waiting := [member for member in self._members if member.live]:
                    self._serve(waiting)
            except BaseException:  # Ctrl-C
                self._stop()
                raise
            finally:
                sys.stdout = stdout
                set_generator_states(generators)
        return [member.outcome for member in self._members]

    def join(self, stage: int, key: Hashable, content: Any, work: Work) -> Any:
        """Request work from within a job; equal requests of all jobs are processed at once.

        Args:
            stage: requests of the lowest stage are processed first.
            key: requests with equal stage and key are equal.
            content: the input of the work.
            work: processes a list of contents; one of the equal requests' functions is called.

        Raises:
            Exception: an error of the work, in all jobs with this request.
        """
        member = self._active
        if member is None:
            raise RuntimeError("join() is for the jobs of run()")
        member.request = _Request(stage, key, content, work)
        self._handed_back.release()
        member.turn.acquire()
        if self._stopped:
            raise Stopped
        answer, error = member.answer, member.error
        member.answer = member.error = None
        if error is not None:
            raise error
        return answer

    def _serve(self, waiting: Sequence[_Member]) -> None:
        """Process the equal requests of the lowest stage and continue their jobs."""
        requests = [member.request for member in waiting if member.request is not None]
        first = min(requests, key=lambda request: request.stage)
        equal = [m for m in waiting if m.request and _same(m.request, first)]
        try:
            answers = first.work([m.request.content for m in equal if m.request])
            for member, answer in zip(equal, answers, strict=True):
                member.answer = answer
        except Exception as error:
            for member in equal:
                member.error = error
        del requests, first
        for member in equal:
            member.request = None
        answers = ()  # free each answer as soon as its job has used it
        for member in equal:
            self._give_turn(member)

    def _give_turn(self, member: _Member) -> None:
        """Let a job run until it requests batched work or ends."""
        set_generator_states(member.generators)
        sys.stdout = member.stdout
        self._active = member
        if member.thread is None:
            member.thread = threading.Thread(target=self._live, args=(member,), daemon=True)
            member.thread.start()
        else:
            member.turn.release()
        self._take_back()

    def _take_back(self) -> None:
        self._handed_back.acquire()
        member, self._active = self._active, None
        if member is not None:
            member.stdout, member.generators = sys.stdout, generator_states()

    def _live(self, member: _Member) -> None:
        """Run a job in its thread."""
        try:
            member.outcome = member.job()
        except BaseException as error:
            member.outcome = error
        finally:
            member.ended = True
            self._handed_back.release()

    def _stop(self) -> None:
        """End all jobs at their current request, so that each can release its resources."""
        self._stopped = True
        if self._active is not None:
            self._take_back()
        for member in self._members:
            if member.live:
                self._give_turn(member)


def _same(one: _Request, other: _Request) -> bool:
    return (one.stage, one.key) == (other.stage, other.key)
