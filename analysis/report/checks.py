"""Which runs may stand in one row, and which beside each other."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from analysis.protocols import COLUMNS, trained_on
from analysis.scores import Run, Runs, is_zero_shot
from safeio.errors import UserError

from .settings import TRAIT_NAMES, TRAITS

Pair = tuple[str, Any, Run, Any, Run]  # trait, its value in a run, the run, and the other's


def members_of(protocol: str, runs: Runs) -> Runs:
    """The runs that count in a protocol's table."""
    column = COLUMNS[protocol]
    return [(label, run) for label, run in runs if column(run)]


def test_set(run: Run) -> tuple[Any, ...]:
    """What a run was tested on."""
    return run["dataset"], run["subsample_classes"], tuple(run["target_domains"]), run["split"]


def training_set(run: Run) -> tuple[Any, ...]:
    """What a run drew its training images with."""
    return (*trained_on(run), run["subsample_classes"], run["seed"])


# Traits that are compared between runs of the same images alone.
PLACES = {"num_test": test_set, "test_data": test_set, "train_data": training_set}


def differences(runs: Sequence[Run]) -> Iterator[Pair]:
    """For every trait in which runs differ, two that do.

    The data and its amount are compared between runs of the same dataset, classes and (for
    training) shots and seed; a trait that a run does not know is not known to differ.
    """
    for trait, value_of in TRAITS.items():
        first: dict[Any, tuple[Any, Run]] = {}
        for run in runs:
            value = value_of(run)
            if value is None:
                continue
            place = PLACES[trait](run) if trait in PLACES else None
            other, other_run = first.setdefault(place, (value, run))
            if other != value:
                yield trait, other, other_run, value, run
                break


def refuse_repeated(protocol: str, runs: Runs) -> None:
    """Make sure that no number of a table comes from two runs of the same seed.

    Raises:
        UserError: two runs have the same row, data and seed; neither is known to be the right one.
    """
    seen: dict[Any, Run] = {}
    for label, run in runs:
        key = (label, *trained_on(run), COLUMNS[protocol](run), run["seed"])
        other = seen.setdefault(key, run)
        if other is not run and not is_zero_shot(run):
            raise UserError(
                f"{other['folder']} and {run['folder']} are two runs of {label} on "
                f"{run['dataset']} with the same settings, data and seed {run['seed']}; remove "
                "one or name folders that hold only one"
            )


def refuse_mixed(runs: Runs) -> None:
    """Make sure that each row stands for one thing.

    Raises:
        UserError: runs of a row differ in a trait.
    """
    for label, members in by_label(runs).items():
        for trait, value, run, other, other_run in differences(members):
            name = TRAIT_NAMES.get(trait, trait)
            how = f"name rows by it with --by {trait}, " if trait not in PLACES else ""
            raise UserError(
                f"Runs of {label} differ in {name}: {value} in {run['folder']}, {other} in "
                f"{other_run['folder']}; {how}report them apart, or mix them with --allow-mixed"
            )


def by_label(runs: Runs) -> dict[str, list[Run]]:
    """The runs of each row."""
    rows: defaultdict[str, list[Run]] = defaultdict(list)
    for label, run in runs:
        rows[label].append(run)
    return dict(rows)


def notes_on(runs: Runs) -> list[str]:
    """Say what is mixed within rows, which was asked for, and what differs between rows."""
    notes = []
    rows = by_label(runs)
    mixed = set()
    for label, members in rows.items():
        for trait, value, run, other, other_run in differences(members):
            mixed.add(trait)
            notes.append(
                f"{label} mixes runs that differ in {TRAIT_NAMES.get(trait, trait)}: {value} in "
                f"{run['folder']}, {other} in {other_run['folder']}."
            )
    labels = {id(run): label for label, run in runs}
    for trait, value, run, other, other_run in differences([run for _, run in runs]):
        if trait not in mixed:
            notes.append(
                f"Not all rows are comparable: {TRAIT_NAMES.get(trait, trait)} is {value} for "
                f"{labels[id(run)]} and {other} for {labels[id(other_run)]}."
            )
    return notes + code_notes([run for _, run in runs])


def code_notes(runs: Sequence[Run]) -> list[str]:
    """Say where runs come from different states of the code, or from one that no commit has."""
    origins = [run.get("provenance") or {} for run in runs]
    commits = {origin["commit"] for origin in origins if origin.get("commit")}
    notes = []
    if len(commits) > 1:
        notes.append(f"The runs come from {len(commits)} commits of the code; see Versions.")
    if dirty := sum(bool(origin.get("dirty")) for origin in origins):
        have = "runs come" if dirty > 1 else "run comes"
        notes.append(f"{dirty} {have} from code with changes that are in no commit.")
    return notes
