"""The paper's numbers beside ours, where they are about the same data and backbone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.results import method_of
from analysis.scores import AVERAGE, Run, Runs, Score, average, natural_order, paper_order
from clip.download import MODELS
from dassl.utils.tools import get_most_similar_str_to_a_from_b
from safeio.errors import UserError

from .accuracy import Tables, shots_name
from .checks import by_label
from .listing import DASH, Item, Listing, accuracy, number
from .paper import (
    ALL_SHOTS,
    ELEVEN,
    FILES,
    SHOTS,
    SOURCE,
    TITLES,
    PaperNumber,
    paper_numbers,
    read_table,
)
from .settings import Settings, settings_of, trained

METHOD_OF_PAPER = {"N_CTX": 16, "CSC": False, "CTX_INIT": "", "CLASS_TOKEN_POSITION": "end"}
SEEDS = 5


@dataclass(frozen=True)
class Match:
    """A number of the paper and ours."""

    label: str
    theirs: PaperNumber
    ours: Score


def wanted_tables(names: Sequence[str]) -> list[str]:
    """Keys of the paper's tables that were asked for, such as "a5".

    Raises:
        UserError: there is no such table here.
    """
    keys = [name.lower().removeprefix("table").strip(" _") for name in names]
    for name, key in zip(names, keys, strict=True):
        if key not in FILES:
            nearest = get_most_similar_str_to_a_from_b(key, FILES)
            raise UserError(
                f'--paper "{name}" is no table of the paper that is here; did you mean '
                f'"{nearest}"? There are: {", ".join(FILES)}'
            )
    return list(dict.fromkeys(keys))


def find_matches(runs: Runs, tables: Tables) -> list[Match]:
    """Our numbers that stand for the same as one of the paper's.

    They have its backbone, dataset, method, shots and Nemesis settings. What else differs,
    `deviations` says.
    """
    rows = by_label(runs)
    matches = []
    for theirs in paper_numbers():
        for label, members in rows.items():
            concerned = [run for run in members if _concerns(run, theirs)]
            if not concerned or not all(_fits(run, theirs) for run in concerned):
                continue
            ours = _ours(label, theirs, tables)
            if ours is not None and ours.accuracies:
                matches.append(Match(label, theirs, ours))
    return matches


def _concerns(run: Run, theirs: PaperNumber) -> bool:
    """Whether a run's data and shots are those of a number of the paper."""
    source = trained(run)
    return (
        source["dataset"] in (theirs.datasets or (theirs.dataset,))
        and source["shots"] in (SHOTS if theirs.shots == ALL_SHOTS else (theirs.shots,))
        and source["subsample_classes"] == ("base" if theirs.table == "a4" else "all")
    )


def _fits(run: Run, theirs: PaperNumber) -> bool:
    """Whether a run has the method, backbone and Nemesis settings of a number of the paper."""
    return (
        method_of(trained(run)) == theirs.method
        and _has_backbone(run, theirs.backbone)
        and _has_settings(settings_of(run), theirs.settings)
    )


def _has_backbone(run: Run, name: str) -> bool:
    digest = str(run.get("weights_sha256") or "none")
    return run.get("backbone") == name or digest in MODELS[name]


def _has_settings(ours: Settings, theirs: Mapping[str, Any]) -> bool:
    return all(ours.get(key) == value for key, value in theirs.items())


def _ours(label: str, theirs: PaperNumber, tables: Tables) -> Score | None:
    """Our number; an average only when it is over the paper's datasets."""
    if theirs.datasets:
        cells = tables.scores if theirs.column == "accuracy" else tables.other
        found = {key[1] for key in cells if key[0] == label and cells[key].accuracies} - {AVERAGE}
        if found != set(theirs.datasets):
            return None
    if theirs.column != "accuracy":
        return tables.other.get((label, theirs.dataset, theirs.shots, theirs.column))
    if theirs.shots == ALL_SHOTS:
        scores = [tables.scores.get((label, theirs.dataset, shots)) for shots in SHOTS]
        return average(scores) if all(scores) else None
    return tables.scores.get((label, theirs.dataset, theirs.shots))


def deviations(runs: Runs, matches: Sequence[Match]) -> list[str]:
    """What in the matching runs is not as in the paper, a sentence each."""
    labels = {match.label for match in matches}
    found: dict[str, None] = {}
    for label, run in runs:
        if label not in labels:
            continue
        source = trained(run)
        views = source["config"].get("INPUT", {}).get("TRAIN_VIEWS", 0)
        if views:
            found[f"trained on {views} kept views of each picture"] = None
        for key, value in settings_of(run).items():
            node, _, name = key.rpartition(".")
            own = node == f"TRAINER.{source['trainer'].removesuffix('Nemesis').upper()}"
            wanted = (
                4
                if name == "N_CTX" and "CoCoOp" in source["trainer"]
                else METHOD_OF_PAPER.get(name)
            )
            if own and name in METHOD_OF_PAPER and value != wanted:
                found[f"{name} {value!r} instead of {wanted!r}"] = None
        if run["split"] != "test":
            found[f"tested on {run['split']}"] = None
    counts = [len(match.ours.accuracies) for match in matches if _is_over_seeds(match.theirs)]
    fewest = min(counts, default=SEEDS)
    if fewest < SEEDS:
        few = "as few as " if max(counts) > fewest else ""
        found[f"{few}{fewest} seed{'s' * (fewest > 1)} instead of {SEEDS}"] = None
    return list(found)


def _is_over_seeds(theirs: PaperNumber) -> bool:
    """Whether our number has an item a seed; a mean of means and H have one in all."""
    return theirs.dataset != AVERAGE and theirs.shots != ALL_SHOTS and theirs.column != "H"


def _order(match: Match) -> tuple[Any, ...]:
    theirs = match.theirs
    place = theirs.dataset == AVERAGE, *paper_order(theirs.dataset)
    return (
        *place,
        natural_order(match.label),
        theirs.shots == ALL_SHOTS,
        theirs.shots,
        theirs.table,
    )


def paper_listing(runs: Runs, matches: Sequence[Match]) -> Listing | None:
    """Our numbers, the paper's and the difference."""
    if not matches:
        return None
    rows = []
    records = []
    for match in sorted(matches, key=_order):
        theirs, ours = match.theirs, match.ours
        on = _on(theirs)
        rows.append(
            [
                Item(theirs.dataset),
                Item(match.label),
                Item(on),
                accuracy(ours),
                number(theirs.value),
                number(ours.mean - theirs.value, sign=True),
                Item(f"Table {theirs.table.upper()}"),
            ]
        )
        records.append(
            {
                "dataset": theirs.dataset,
                "method": match.label,
                "on": on,
                "ours": ours.mean,
                "ours_std": ours.std,
                "seeds": len(ours.accuracies),
                "lacks": ours.lacks,
                "paper": theirs.value,
                "difference": ours.mean - theirs.value,
                "paper_table": theirs.table.upper(),
            }
        )
    differing = deviations(runs, matches)
    notes = f" Ours differ from the paper's setting: {'; '.join(differing)}." if differing else ""
    if any(match.theirs.shots == ALL_SHOTS for match in matches):
        notes += (
            " Tables A6 and A7 do not say their shots; ours is the mean over 1, 2, 4, 8 and 16."
        )
    caption = (
        f"Ours: mean ± standard deviation over the seeds; paper: as printed in {SOURCE}; "
        f"difference: ours less the paper's, in percentage points.{notes}"
    )
    header = ["dataset", "method", "on", "ours", "paper", "difference", "source"]
    return Listing("paper", "Beside the paper", caption, header, rows, records, text_columns=3)


def _on(theirs: PaperNumber) -> str:
    if theirs.table == "1":
        return theirs.column
    if theirs.column != "accuracy":
        return theirs.column
    return "mean over shots" if theirs.shots == ALL_SHOTS else shots_name(theirs.shots)


def printed_tables(keys: Iterable[str]) -> list[Listing]:
    """The paper's tables as they are."""
    listings = []
    for key in keys:
        for index, file in enumerate(FILES[key]):
            header, rows = read_table(file)
            text = sum(not _is_number(name, rows, at) for at, name in enumerate(header))
            listings.append(
                Listing(
                    f"paper_table_{key}{'_' * bool(index)}{index or ''}",
                    f"The paper's Table {key.upper()}: {TITLES[key]}",
                    f"The paper's own numbers ({SOURCE}), on its own data: they say nothing about "
                    "runs on other data. Accuracy in %; columns 1 to 16 are shots per class.",
                    header,
                    [[_printed(cell) for cell in row] for row in rows],
                    [dict(zip(header, row, strict=True)) for row in rows],
                    text_columns=max(text, 1),
                    source="paper",
                    grouped=header[0] == "dataset" and len(rows) > 6,
                )
            )
    return listings


def _is_number(name: str, rows: Sequence[Sequence[str]], at: int) -> bool:
    return name not in ("omega", "N") and all(_value(row[at]) is not None for row in rows)


def _value(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _printed(text: str) -> Item:
    return Item(text or DASH, _value(text))


def why_none(runs: Runs) -> str:
    """Say why no number of the paper stands beside ours."""
    theirs = set(ELEVEN)
    if not any(trained(run)["dataset"] in theirs for _, run in runs):
        data = ", ".join(sorted({run["dataset"] for _, run in runs}))
        return (
            f"The paper's numbers are for other data (its eleven public datasets, not {data}), so "
            "none stands beside ours; --paper TABLE shows one of its tables apart."
        )
    if not any(_has_backbone(run, name) for _, run in runs for name in ("RN50", "ViT-B/16")):
        return "The paper's numbers are for RN50 and ViT-B/16, so none stands beside ours."
    return "None of these rows has the settings of a number in the paper."
