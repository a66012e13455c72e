"""A run's folder belongs to one process at a time."""

import errno
import fcntl
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from dassl.engine.run_lock import lock_folder
from safeio.errors import UserError
from tests.helpers.killing import end_of, start
from tests.helpers.runs import Capture, command, refuse, wait_for

VIEWS = ("INPUT.TRAIN_VIEWS", "2", "DATASET.NUM_SHOTS", "4")


def test_a_second_process_is_refused_and_told_who_is_first(
    tmp_path: Path, data_root: Path, capsys: Capture
) -> None:
    folder = tmp_path / "run"
    first = start(*command(folder, data_root, *VIEWS, "OPTIM.MAX_EPOCH", "1000"))
    wait_for(folder / "resume.pth.tar", first.poll)
    assert first.poll() is None
    os.kill(first.pid, signal.SIGSTOP)  # it holds the lock without using the processor
    (tmp_path / "tested").mkdir()
    before = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    evaluation = ["--eval-only", "--model-dir", str(tmp_path / "tested")]
    try:
        for extra in (evaluation, ["--overwrite"], ["--resume", str(folder)]):
            message = refuse(command(folder, data_root, *extra, *VIEWS), capsys)
            assert f"in use by process {first.pid} on {socket.gethostname()}, since 2" in message
        assert before == {p.name for p in folder.iterdir() if not p.name.startswith(".")}
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        end_of(first)
    # A dead process holds no lock, although the file about it remains.
    assert (folder / ".run.json").is_file()
    with lock_folder(folder), pytest.raises(UserError, match="in use"), lock_folder(folder):
        pass
    assert not (folder / ".run.json").exists()


def test_a_lock_that_a_dead_runs_loaders_hold_is_waited_for(tmp_path: Path) -> None:
    """A copy of the lock in another process is closed a moment later."""
    dead = os.fork() or os._exit(0)
    os.waitpid(dead, 0)
    lock = os.open(tmp_path / ".run.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    holder = f'{{"host": "{socket.gethostname()}", "pid": {dead}, "since": "then"}}'
    (tmp_path / ".run.json").write_text(holder)
    signal.signal(signal.SIGALRM, lambda *_: os.close(lock))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    start_time = time.monotonic()
    with lock_folder(tmp_path):
        assert time.monotonic() - start_time >= 0.3
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def test_temporary_files_of_a_dead_run_are_removed_and_no_others(tmp_path: Path) -> None:
    left = [".results.json.a.tmp", "model/.model.pth.tar-3.a.tmp", "model/.checkpoint.a.tmp"]
    others = ["other/.results.json.a.tmp", "other/model/.model.pth.tar-3.a.tmp", "notes.tmp"]
    for name in left + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with lock_folder(tmp_path):
        assert not [name for name in left if (tmp_path / name).exists()]
        assert all((tmp_path / name).exists() for name in others)


def test_a_file_system_without_locks_gives_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with lock_folder(tmp_path):
        pass
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("Warning: ") and "No locks available" in warning
