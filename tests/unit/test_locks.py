"""Locks between processes; two of one process stand for two processes."""

import threading
from pathlib import Path

import pytest

from safeio import locks
from safeio.locks import exclusive


def test_a_lock_that_is_held_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".lock"
    with exclusive(path) as first, exclusive(path) as second:
        assert (first, second) == (True, False)
    with exclusive(path) as again:
        assert again


def test_a_lock_that_is_held_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = threading.Event()
    monkeypatch.setattr(locks, "print", lambda *_: waits.set(), raising=False)
    order: list[str] = []

    def second() -> None:
        with exclusive(tmp_path / ".lock", "waiting"):
            order.append("second")

    thread = threading.Thread(target=second)
    with exclusive(tmp_path / ".lock", "not printed"):
        assert not waits.is_set()
        thread.start()
        assert waits.wait(60)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]
