"""Make the tables of the protocols from the results.json of finished runs.

    python -m nemesis.report.protocols base-to-new output/base_to_new/CoOp output/base_to_new/CoCoOp

prints the table of all finished runs in these folders and writes it as table.md and table.json.
few-shot: accuracy on every dataset with every number of shots. base-to-new: accuracy on the base
classes (trained) and the new classes. transfer: accuracy on the source dataset and on other
datasets or domains. Cells and averages with missing runs state how many are present.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from os.path import commonpath
from pathlib import Path

from dassl.utils import Parser, exit_code
from safeio.errors import UserError
from safeio.files import write_atomic, write_json

from .results import Cells, accuracy_table
from .scores import (
    AVERAGE,
    Row,
    Run,
    Runs,
    Score,
    Table,
    average,
    caption_of,
    gather,
    harmonic_mean,
    is_zero_shot,
    label_runs,
    make_record,
    make_table,
    paper_order,
    row_order,
    rows_of,
)


def _is_training(run: Run, classes: str) -> bool:
    own_test = run["subsample_classes"] == classes and not run["target_domains"]
    return own_test and "model_dir" not in run


def few_shot(runs: Runs, seeds: int = 0) -> Table:
    """Make a table with a row per dataset and method and a column per number of shots.

    Args:
        runs: finished runs; only trainings on all classes are used.
        seeds: minimum number of seeds of a complete cell.

    Raises:
        UserError: no run is usable, or two runs have the same cell and seed.
    """
    used = [(label, run) for label, run in runs if _is_training(run, "all")]
    scores = gather((((label, *trained_on(run)), run) for label, run in used), seeds)
    datasets = sorted({dataset for _, dataset, _ in scores})
    if len(datasets) > 1:
        for label, shots in dict.fromkeys((label, shots) for label, _, shots in scores):
            mean = average([scores.get((label, dataset, shots)) for dataset in datasets])
            if mean:
                scores[label, AVERAGE, shots] = mean
    cells: Cells = {
        (label, dataset, shots): score for (label, dataset, shots), score in scores.items()
    }
    columns = sorted({shots for _, _, shots in cells if shots}) or [0]
    return Table(
        f"{caption_of(used)}\n\n{accuracy_table(cells, columns)}",
        [make_record(key, "accuracy", scores[key]) for key in sorted(scores, key=row_order)],
    )


def base_to_new(runs: Runs, seeds: int = 0) -> Table:
    """Make a table of the accuracy on base classes, on new classes, and their harmonic mean H.

    As in CoCoOp's tables, H is computed from accuracies averaged over the seeds, and in the row of
    averages from those averaged over the datasets; it is not the mean of the datasets' H.

    Args:
        runs: finished runs: trainings on base classes and their evaluations on new classes.
        seeds: minimum number of seeds of a complete cell.

    Raises:
        UserError: no run is usable, or two runs have the same cell and seed.
    """
    used = [(label, run) for label, run in runs if half_of(run)]
    scores = gather((((label, *trained_on(run), half_of(run)), run) for label, run in used), seeds)
    rows = rows_of(scores)
    datasets = {dataset for _, dataset, _ in rows}
    if len(datasets) > 1:
        for label, shots in dict.fromkeys((label, shots) for label, _, shots in rows):
            # Both averages are over the datasets that have base and new accuracies.
            pairs = [rows.get((label, dataset, shots), {}) for dataset in datasets]
            both = [row if _has_both(row) else {} for row in pairs]
            means = {half: average([row.get(half) for row in both]) for half in ("base", "new")}
            rows[label, AVERAGE, shots] = {half: mean for half, mean in means.items() if mean}
    for row in rows.values():
        if _has_both(row):
            value = harmonic_mean(row["base"].mean, row["new"].mean)
            row["H"] = Score((value,), row["base"].missing or row["new"].missing)
    note = "H: harmonic mean of the averaged base and new accuracies."
    return make_table(f"{caption_of(used)} {note}", rows, ("base", "new", "H"))


def _has_both(row: Row) -> bool:
    return len(row) == 2 and all(score.accuracies for score in row.values())


def half_of(run: Run) -> str:
    """Return the classes that a base-to-new run tests, "base" or "new"; empty for other runs."""
    if _is_training(run, "base"):
        return "base"
    source = run.get("source_run") or {}
    pair = source.get("subsample_classes"), run["subsample_classes"]
    same = source.get("dataset") == run["dataset"] and not run["target_domains"]
    return "new" if same and pair == ("base", "new") else ""


def trained_on(run: Run) -> tuple[str, int]:
    """Return the training dataset and shots of the prompt that a run tests."""
    trained = run.get("source_run") or run
    return trained["dataset"], 0 if is_zero_shot(trained) else max(trained["shots"], 0)


def transfer(runs: Runs, seeds: int = 0) -> list[Table]:
    """Make tables of the accuracy on the source dataset, on every target, and the targets' average.

    Args:
        runs: finished runs: trainings on all classes and evaluations of their prompts elsewhere.
        seeds: minimum number of seeds of a complete cell.

    Returns:
        A table per source dataset.

    Raises:
        UserError: no run is usable, or two runs have the same cell and seed.
    """
    used = [(label, run) for label, run in runs if place_of(run)]
    scores = gather((((label, *trained_on(run), place_of(run)), run) for label, run in used), seeds)
    rows = rows_of(scores)
    tables = []
    for source in sorted({source for _, source, _ in rows}, key=paper_order):
        own = {key: row for key, row in rows.items() if key[1] == source}
        places = {place for row in own.values() for place in row} - {source}
        targets = sorted(places, key=paper_order)
        for row in own.values():
            mean = average([row.get(target) for target in targets], "targets")
            if mean:
                row[AVERAGE] = mean
        note = f"Trained on {source}; average over the {len(targets)} targets."
        tables.append(make_table(f"{caption_of(used)} {note}", own, (source, *targets, AVERAGE)))
    return tables


def place_of(run: Run) -> str:
    """Return the dataset and domains that a transfer run tests; empty for other runs."""
    if _is_training(run, "all"):
        return run["dataset"]
    source = run.get("source_run") or {}
    if source.get("subsample_classes") != "all" or run["subsample_classes"] != "all":
        return ""
    domains = "+".join(run["target_domains"])
    if source["dataset"] == run["dataset"]:
        return domains
    return f"{run['dataset']}: {domains}" if domains else run["dataset"]


# Column of a run in each protocol's table; empty for runs of other protocols.
COLUMNS: dict[str, Callable[[Run], str]] = {
    "few-shot": lambda run: "accuracy" if _is_training(run, "all") else "",
    "base-to-new": half_of,
    "transfer": place_of,
}
PROTOCOLS: dict[str, Callable[[Runs, int], list[Table]]] = {
    "few-shot": lambda runs, seeds: [few_shot(runs, seeds)],
    "base-to-new": lambda runs, seeds: [base_to_new(runs, seeds)],
    "transfer": transfer,
}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(__doc__)
    parser.add_argument("protocol", choices=PROTOCOLS)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="folders of runs")
    parser.add_argument("--output-dir", type=Path, help="default: common parent of the FOLDERs")
    parser.add_argument(
        *("--seeds",),
        type=int,
        default=0,
        help="seeds of a complete cell; default: the largest number of any cell",
    )
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Print the tables and write table.md and table.json.

    Raises:
        UserError: a folder does not exist, or contains no runs of the protocol.
    """
    for folder in arguments.folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; name folders that contain finished runs")
    runs = label_runs(arguments.folders)
    tables = PROTOCOLS[arguments.protocol](runs, arguments.seeds)
    text = "\n\n".join(table.markdown for table in tables) + "\n"
    output = arguments.output_dir or Path(commonpath([f.absolute() for f in arguments.folders]))
    write_atomic(output / "table.md", lambda path: path.write_text(text, encoding="utf-8"))
    write_json([record for table in tables for record in table.records], output / "table.json")
    print(f"{text}\nTable: {output / 'table.md'}, {output / 'table.json'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return exit_code(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
