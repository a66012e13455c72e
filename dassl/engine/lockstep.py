"""Jobs that take turns in one process, and wait for each other where their work can be joined.

Every job is an ordinary function in a thread of its own, but only one of them runs at a time. It
runs until it asks for joint work; when all jobs have asked (or ended), what is asked for alike is
done at once, outside of the jobs. The global random generators and standard output are every job's
own: whoever has the turn finds them as it left them. So a job comes to what it would come to alone.
"""

import os
import sys
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from ..utils import generator_states, set_generator_states

# From what is asked for to what each of those who asked gets.
Work = Callable[[list[Any]], Sequence[Any]]


class Stopped(BaseException):
    """Ends a job because the whole was interrupted."""


@dataclass
class _Request:
    stage: int
    key: Hashable
    content: Any
    work: Work


class _Member:
    """A job with its thread, its request and the globals that are its own."""

    def __init__(self, job: Callable[[], Any], stdout: TextIO) -> None:
        self.job = job
        self.thread: threading.Thread | None = None
        self.turn = threading.Lock()
        self.turn.acquire()
        self.stdout = stdout
        self.generators = generator_states()
        self.request: _Request | None = None
        self.answer: Any = None
        self.fault: BaseException | None = None  # of the joint work
        self.ended = False
        self.outcome: Any = None

    @property
    def live(self) -> bool:
        return self.thread is not None and not self.ended


class Lockstep:
    """Runs jobs side by side until all have ended."""

    def __init__(self) -> None:
        self._members: list[_Member] = []
        self._active: _Member | None = None
        self._handed_back = threading.Lock()
        self._handed_back.acquire()
        self._stopped = False

    def run(self, jobs: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run all jobs to their ends; what they print reaches only what they set up themselves.

        Args:
            jobs: functions that may call `join`.

        Returns:
            What each job returned, or the exception that ended it: the others go on.
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
        """Called by a job: have work done together with all other jobs that ask for the same.

        Args:
            stage: where several kinds of work are asked for, the lowest stage comes first.
            key: jobs whose stage and key are equal are served at once.
            content: what the work is about.
            work: does the work for a list of contents; any job's will do.

        Raises:
            Exception: whatever the work raises, in all jobs that asked.
        """
        member = self._active
        if member is None:
            raise RuntimeError("join() is for the jobs of run()")
        member.request = _Request(stage, key, content, work)
        self._handed_back.release()
        member.turn.acquire()
        if self._stopped:
            raise Stopped
        answer, fault = member.answer, member.fault
        member.answer = member.fault = None
        if fault is not None:
            raise fault
        return answer

    def _serve(self, waiting: Sequence[_Member]) -> None:
        """Do the work of the lowest stage, and let those who asked for it go on."""
        requests = [member.request for member in waiting if member.request is not None]
        first = min(requests, key=lambda request: request.stage)
        alike = [m for m in waiting if m.request and _same(m.request, first)]
        try:
            answers = first.work([m.request.content for m in alike if m.request])
            for member, answer in zip(alike, answers, strict=True):
                member.answer = answer
        except Exception as error:
            for member in alike:
                member.fault = error
        del requests, first
        for member in alike:
            member.request = None
        answers = ()  # what a job has used must not be kept for its neighbours
        for member in alike:
            self._give_turn(member)

    def _give_turn(self, member: _Member) -> None:
        """Let a job run until it asks for joint work or ends."""
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
        """A job's thread."""
        try:
            member.outcome = member.job()
        except BaseException as error:
            member.outcome = error
        finally:
            member.ended = True
            self._handed_back.release()

    def _stop(self) -> None:
        """End all jobs at their next request, so that each can close what it has open."""
        self._stopped = True
        if self._active is not None:
            self._take_back()
        for member in self._members:
            if member.live:
                self._give_turn(member)


def _same(one: _Request, other: _Request) -> bool:
    return (one.stage, one.key) == (other.stage, other.key)
