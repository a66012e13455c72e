"""Finished and missing runs of a sweep, for its report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dassl.engine import identity
from nemesis.report.scores import Run, Runs

from .listing import Listing, groups_of


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
    def state(self) -> str:
        """One sentence on how many runs are done."""
        total = len(self.done) + len(self.missing)
        return f"{len(self.done)} of the {total} runs of {self.name} are done."


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


def in_order(listing: Listing, rows: Sequence[str]) -> Listing:
    """Return the listing with the rows of each dataset in the order of `rows`."""
    if "method" not in listing.header:
        return listing
    at = listing.header.index("method")
    rank = {name: place for place, name in enumerate(rows)}
    groups = [group for _, group in groups_of(listing)] if at else [listing.rows]
    ordered = [
        row
        for group in groups
        for row in sorted(group, key=lambda row: rank.get(row[at].text, len(rank)))
    ]
    return replace(listing, rows=ordered)
