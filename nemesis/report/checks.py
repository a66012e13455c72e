"""Check which runs can be averaged in one row and compared across rows."""

from collections.abc import Iterator, Sequence
from typing import Any

from safeio.errors import UserError

from .results import Run, Runs, by_label, counted, trained_on
from .settings import TRAIT_NAMES, TRAITS

Pair = tuple[str, Any, Run, Any, Run]  # trait, value and run, other value and run


def test_set(run: Run) -> tuple[Any, ...]:
    """Return the key of a run's test images."""
    return run["dataset"], run["subsample_classes"], tuple(run["target_domains"]), run["split"]


def training_set(run: Run) -> tuple[Any, ...]:
    """Return the key of a run's training images."""
    return (*trained_on(run), run["subsample_classes"], run["seed"])


# Traits that are compared only between runs with the same key.
COMPARED_WITHIN = {"num_test": test_set, "test_data": test_set, "train_data": training_set}


def differences(runs: Sequence[Run]) -> Iterator[Pair]:
    """Yield two differing runs for every trait in which runs differ.

    The data and its size are compared between runs of the same dataset, classes and (for training)
    shots and seed. A run that does not record a trait is not counted as different.
    """
    for trait, value_of in TRAITS.items():
        first: dict[Any, tuple[Any, Run]] = {}
        for run in runs:
            value = value_of(run)
            if value is None:
                continue
            key = COMPARED_WITHIN[trait](run) if trait in COMPARED_WITHIN else None
            other, other_run = first.setdefault(key, (value, run))
            if other != value:
                yield trait, other, other_run, value, run
                break


def stated(trait: str, *labels: str) -> bool:
    """Return whether the names of all rows state a trait, which then is what they compare."""
    return all(f"({trait} " in label or f", {trait} " in label for label in labels)


def refuse_mixed(runs: Runs) -> None:
    """Check that the runs of each row are comparable.

    Raises:
        UserError: runs of a row differ in a trait.
    """
    for label, members in by_label(runs).items():
        for trait, value, run, other, other_run in differences(members):
            name = TRAIT_NAMES.get(trait, trait)
            how = f"name rows by it with --by {trait}, " if trait not in COMPARED_WITHIN else ""
            raise UserError(
                f"Runs of {label} differ in {name}: {value} in {run['folder']}, {other} in "
                f"{other_run['folder']}; {how}report them separately, or mix them with "
                "--allow-mixed"
            )


def notes_on(runs: Runs) -> list[str]:
    """List traits that are mixed within rows (--allow-mixed) and that differ between rows."""
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
        if trait not in mixed and not stated(trait, labels[id(run)], labels[id(other_run)]):
            notes.append(
                f"Not all rows are comparable: {TRAIT_NAMES.get(trait, trait)} is {value} for "
                f"{labels[id(run)]} and {other} for {labels[id(other_run)]}."
            )
    return notes + code_notes([run for _, run in runs])


def code_notes(runs: Sequence[Run]) -> list[str]:
    """Note whether runs come from several commits or from uncommitted code."""
    origins = [run.get("provenance") or {} for run in runs]
    commits = {origin["commit"] for origin in origins if origin.get("commit")}
    notes = []
    if len(commits) > 1:
        notes.append(f"The runs come from {len(commits)} commits of the code; see Versions.")
    if dirty := sum(bool(origin.get("dirty")) for origin in origins):
        come = counted(dirty, "run comes", "runs come")
        notes.append(f"{come} from code with uncommitted changes.")
    return notes
