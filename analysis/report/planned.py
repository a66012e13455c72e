"""A report of runs that were planned: what is done of them, and what is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analysis.scores import Run, Runs
from dassl.engine import identity

from .listing import Listing, groups_of


@dataclass(frozen=True)
class Planned:
    """The runs that a report is to be of, whatever else lies beside them.

    Attributes:
        name: where they are described.
        done: folders of the finished runs, each with the name of its row.
        missing: what is not done, as `as_run` says it, with the names of the rows.
        rows: the names of the rows, in their order.
    """

    name: str
    done: Mapping[Path, str]
    missing: Runs
    rows: Sequence[str]

    @property
    def state(self) -> str:
        """How much is done, in a sentence."""
        total = len(self.done) + len(self.missing)
        return f"{len(self.done)} of the {total} runs of {self.name} are done."


def as_run(config: Mapping[str, Any], source: Run | None = None) -> Run:
    """What results.json will say about a run that is not done; its accuracy is None.

    Args:
        config: its whole configuration, as plain dictionaries.
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
    """The listing with the methods' rows in this order, dataset by dataset."""
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
