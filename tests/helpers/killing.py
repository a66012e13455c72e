"""Processes that die while they train: of themselves at a chosen file operation, or killed.

python tests/helpers/killing.py steps FOLDER ARGUMENTS...   dies before its 1st, 2nd, ... operation
python tests/helpers/killing.py often ARGUMENTS...          train.py that saves after every batch
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from safetensors.torch import load_file

from dassl.engine import resume_checkpoint
from dassl.engine.run_record import read_history
from dassl.utils import load_checkpoint, reuse_loaded

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
WHOLE = "whole"


def start(*arguments: str, often: bool = True) -> "subprocess.Popen[str]":
    """train.py in a process of its own, which saves after every batch or as it does by itself."""
    code = (
        (str(Path(__file__)), "often") if often else (str(Path(__file__).parents[2] / "train.py"),)
    )
    return subprocess.Popen(
        [sys.executable, *code, *arguments],
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def outcome(folder: Path) -> dict[str, Any]:
    """All that a finished run has come to, without times and without where it is."""
    results = json.loads((folder / "results.json").read_text())
    del results["train_seconds"], results["checksum"]
    for key in ("OUTPUT_DIR", "RESUME"):
        results["config"].pop(key)
    history = read_history(folder)
    for entry in history:
        entry.pop("seconds", None)
    (last,) = (folder / "prompt_learner").glob(f"model.pth.tar-{results['epochs']}")
    return {
        "prompt": load_file(folder / "prompt.safetensors"),
        "history": history,
        "results": results,
        "checkpoint": load_checkpoint(last),
        "files": {p.name for p in folder.iterdir() if not p.name.startswith("log.txt")},
    }


def _die_at(step: int, folder: Path) -> None:
    """Let this process kill itself before it opens or renames a file there for the nth time."""
    left = step

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event == "open":
            path, _, flags = arguments
            if not isinstance(path, str | os.PathLike) or not flags & (os.O_WRONLY | os.O_RDWR):
                return
        elif event in ("os.rename", "os.remove"):
            path = arguments[0]
        else:
            return
        if str(path).startswith(str(folder)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def _in_child(arguments: Sequence[str], step: int, folder: Path) -> int:
    """Train in a forked process; returns what `os.waitpid` says."""
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


def _steps(base: Path, arguments: Sequence[str]) -> None:
    import train

    resume_checkpoint.SAVE_SECONDS, resume_checkpoint.SAVE_SHARE = 0.0, 1e9
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
            step += 1


def _main() -> int:
    import train

    kind, *rest = sys.argv[1:]
    if kind == "steps":
        _steps(Path(rest[0]), rest[1:])
        return 0
    resume_checkpoint.SAVE_SECONDS, resume_checkpoint.SAVE_SHARE = 0.0, 1e9
    return train.main(rest)


if __name__ == "__main__":
    sys.exit(_main())
