"""Which runs a command line means."""

from collections.abc import Iterable
from pathlib import Path

from dassl.engine import CONFIG, RESULTS

LEARNER = "prompt_learner"  # the folder of a run's checkpoints


def run_folders(paths: Iterable[Path]) -> list[Path]:
    """The runs that are named, and those below the folders that are named; each once.

    A named folder that is no run and has none with learned prompts below it is given as it is, for
    whoever opens it to say what is wrong.
    """
    found: dict[Path, None] = {}
    for path in paths:
        below = [] if (path / CONFIG).is_file() else sorted(path.rglob(RESULTS))
        runs = [file.parent for file in below if (file.parent / LEARNER).is_dir()]
        found.update(dict.fromkeys(runs or [path]))
    return list(found)
