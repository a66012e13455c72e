"""Finished runs as results.json describes them: method, training data and column in a table."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# CoOp's order, which the papers' tables follow.
ELEVEN = (
    *("ImageNet", "Caltech101", "OxfordPets", "StanfordCars", "OxfordFlowers", "Food101"),
    *("FGVCAircraft", "SUN397", "DescribableTextures", "EuroSAT", "UCF101"),
)
DATASETS = (*ELEVEN, "ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR")
BASELINE = "ZeroshotCLIP"
AVERAGE = "average"

Run = Mapping[str, Any]
Runs = Sequence[tuple[str, Run]]  # each with its row name


def method_of(run: Run) -> str:
    """Return the name of a run's method in tables: `CoOp`, `PLOT+PAN`, `CoOp+PUN+PAN`, ..."""
    base = run["trainer"].removesuffix("Nemesis")
    if base == run["trainer"]:
        return base
    beta = run["config"]["TRAINER"]["NEMESIS"]["BETA"]
    return base + ("+PUN" if beta > 0 else "") + ("+PAN" if beta < 1 else "")


def trained(run: Run) -> Run:
    """Return the training run of the tested prompt: the run itself, or an evaluation's source."""
    return run.get("source_run") or run


def trained_on(run: Run) -> tuple[str, int]:
    """Return the training dataset and shots of the prompt that a run tests."""
    source = trained(run)
    return source["dataset"], 0 if is_zero_shot(source) else max(source["shots"], 0)


def is_zero_shot(run: Run) -> bool:
    """Return whether the run's method is zero-shot CLIP, which is not trained."""
    return run["trainer"].startswith(BASELINE)


def _is_training(run: Run, classes: str) -> bool:
    own_test = run["subsample_classes"] == classes and not run["target_domains"]
    return own_test and "model_dir" not in run


def half_of(run: Run) -> str:
    """Return the classes that a base-to-new run tests, "base" or "new"; empty for other runs."""
    if _is_training(run, "base"):
        return "base"
    source = run.get("source_run") or {}
    pair = source.get("subsample_classes"), run["subsample_classes"]
    same = source.get("dataset") == run["dataset"] and not run["target_domains"]
    return "new" if same and pair == ("base", "new") else ""


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
    "few_shot": lambda run: "accuracy" if _is_training(run, "all") else "",
    "base_to_new": half_of,
    "transfer": place_of,
}


def members_of(protocol: str, runs: Runs) -> Runs:
    """Return the runs that belong to a protocol's table.

    A source dataset belongs to the transfer table if one of its prompts was tested elsewhere.
    """
    column = COLUMNS[protocol]
    members = [(label, run) for label, run in runs if column(run)]
    if protocol == "transfer":
        sources = {trained_on(run)[0] for _, run in members if "model_dir" in run}
        members = [(label, run) for label, run in members if trained_on(run)[0] in sources]
    return members


def by_label(runs: Runs) -> dict[str, list[Run]]:
    """Group the runs by row."""
    rows: defaultdict[str, list[Run]] = defaultdict(list)
    for label, run in runs:
        rows[label].append(run)
    return dict(rows)


def in_row_order(runs: Runs, order: Sequence[str] = ()) -> Runs:
    """Sort by row, in which order all tables list the rows.

    Args:
        runs: with their row names.
        order: the row names; by default, zero-shot CLIP is first and the others are sorted.
    """

    def rank(pair: tuple[str, Run]) -> tuple[Any, ...]:
        label = pair[0]
        at = order.index(label) if label in order else len(order)
        return at, not label.startswith(BASELINE), natural_order(label)

    return sorted(runs, key=rank)


def natural_order(text: str) -> list[tuple[bool, float, str]]:
    """Return a natural sort key: omega 2 before omega 10."""
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", text)
    return [(part[0].isdigit(), float(part) if part[0].isdigit() else 0.0, part) for part in parts]


def paper_order(name: str) -> tuple[int, int, str]:
    """Return a sort key: the average, datasets in the papers' order, then the others."""
    known = DATASETS.index(name) if name in DATASETS else len(DATASETS)
    return (name != AVERAGE, known, name)


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return, for example, "1 seed" or "5 seeds"."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def shots_name(count: int) -> str:
    """Return, for example, "1 shot" or "16 shots"."""
    return counted(count, "shot")
