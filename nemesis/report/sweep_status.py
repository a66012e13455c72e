"""Finished and missing runs of a sweep, for its report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dassl.engine import identity

from .results import Run, Runs


@dataclass(frozen=True)
class SweepStatus:
    """The finished and missing runs of a sweep.

    Attributes:
        name: the sweep file.
        done: row name of each finished run, by folder.
        missing: the other runs, as `as_run` describes them, with their row names.
        rows: the row names in order.
    """

    name: str
    done: Mapping[Path, str]
    missing: Runs
    rows: Sequence[str]

    @property
    def progress(self) -> str:
        """How many runs are done, such as "5 of 12 runs done"."""
        total = len(self.done) + len(self.missing)
        return (
            f"{len(self.done)} of {total} runs done" if self.missing else f"{total} runs, all done"
        )


def as_run(config: Mapping[str, Any], source: Run | None = None) -> Run:
    """Return what results.json will contain for an unfinished run, with accuracy None.

    Args:
        config: its complete configuration as nested dictionaries.
        source: for an evaluation, the run whose model is tested.
    """
    run = {
        **identity(config),
        "config": config,
        "split": config["TEST"]["SPLIT"],
        "train_views": config["INPUT"]["TRAIN_VIEWS"],
        "accuracy": None,
    }
    return run if source is None else {**run, "model_dir": "", "source_run": source}
