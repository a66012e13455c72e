"""Runs that die while they train, by an exception or by a signal, and comparisons of what is left.

python tests/helpers/killing.py steps FOLDER EVERY ARGUMENTS...
    dies before its 1st, (1+EVERY)th, (1+2 EVERY)th ... file operation, and is resumed each time
python tests/helpers/killing.py often ARGUMENTS...
    train.py that saves after every batch
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import pytest
import torch
from safetensors.torch import load_file

from dassl.engine import resume_checkpoint
from dassl.engine.resuming import Resuming
from dassl.engine.run_record import read_history
from dassl.utils import load_checkpoint, reuse_loaded
from tests.helpers.runs import SECONDS

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
WHOLE = "whole"


def same_state(first: Any, second: Any) -> bool:
    """Whether two nested structures of tensors and numbers are equal."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return set(first) == set(second) and all(same_state(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return all(same_state(a, b) for a, b in zip(first, second, strict=True))
    return first == second


def outcome(folder: Path) -> dict[str, Any]:
    """Everything that a finished run has produced, without times and its own path."""
    results = json.loads((folder / "results.json").read_text())
    del results["train_seconds"], results["checksum"]
    for key in ("OUTPUT_DIR", "RESUME"):
        results["config"].pop(key)
    (last,) = folder.glob(f"*/model.pth.tar-{results['epochs']}")
    (learned,) = folder.glob("*.safetensors")
    return {
        "learned": load_file(learned),
        "history": [{k: v for k, v in e.items() if k != "seconds"} for e in read_history(folder)],
        "results": results,
        "checkpoint": load_checkpoint(last),
        "files": {p.name for p in folder.iterdir() if not p.name.startswith("log.txt")},
    }


def assert_same(one: Path, other: Path, own_processes: bool = False) -> None:
    """Assert equal prompts, checkpoints, histories, results and names of files."""
    first, second = outcome(one), outcome(other)
    if not own_processes:
        # jaxtyping's checker, which is active within the tests, draws from Python's generator.
        for end in (first, second):
            del end["checkpoint"]["random_states"]["python"]
    for part, content in first.items():
        assert same_state(content, second[part]), part


class Killed(BaseException):
    """The simulated end of the process."""


@contextmanager
def killed_after(reached: int) -> Iterator[None]:
    """Save at every place where a run may save, and raise Killed at the nth one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume_checkpoint, "SAVE_SECONDS", 0.0)
        patch.setattr(resume_checkpoint, "SAVE_SHARE", 1e9)
        left, save = [reached], Resuming.checkpoint_if_due

        def save_and_die(self: Any, *arguments: Any) -> None:
            save(self, *arguments)
            left[0] -= 1
            if not left[0]:
                raise Killed

        patch.setattr(Resuming, "checkpoint_if_due", save_and_die)
        yield


def start(*arguments: str, often: bool = True) -> "subprocess.Popen[str]":
    """Start train.py in its own process group, saving after every batch or as usual."""
    script = str(Path(__file__).parents[2] / "train.py")
    return subprocess.Popen(
        [sys.executable, *((__file__, "often") if often else (script,)), *arguments],
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def end_of(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """The exit code and standard error of a process."""
    error = process.communicate(timeout=SECONDS)[1]
    return process.returncode, error


def _die_at(step: int, folder: Path) -> None:
    """Let this process kill itself before its nth opening, renaming or removal of a file there."""
    left = step

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in ("open", "os.rename", "os.remove"):
            return
        path = arguments[0]
        if event == "open" and not (
            isinstance(path, str | os.PathLike) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        ):
            return
        if str(path).startswith(str(folder)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def _in_child(arguments: Sequence[str], step: int, folder: Path) -> int:
    """Train in a forked process; returns the status of `os.waitpid`."""
    pid = os.fork()
    if pid == 0:
        import train

        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            if step:
                _die_at(step, folder)
            code = train.main(list(arguments))
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def _steps(base: Path, every: int, arguments: Sequence[str]) -> None:
    import train

    with reuse_loaded():
        assert train.main(["--output-dir", str(base / WHOLE), *arguments]) == 0
        step = 1
        while True:
            folder = base / str(step)
            status = _in_child(["--output-dir", str(folder), *arguments], step, folder)
            if status == 0:
                break
            assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
            again = ["--output-dir", str(folder), "--resume", str(folder), *arguments]
            assert _in_child(again, 0, folder) == 0
            step += every


def _main() -> int:
    import train

    kind, *rest = sys.argv[1:]
    resume_checkpoint.SAVE_SECONDS, resume_checkpoint.SAVE_SHARE = 0.0, 1e9
    if kind == "often":
        return train.main(rest)
    _steps(Path(rest[0]), int(rest[1]), rest[2:])
    return 0


if __name__ == "__main__":
    sys.exit(_main())
