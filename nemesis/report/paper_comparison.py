"""Compare accuracies with the paper's numbers for the same data, method and backbone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clip.download import MODELS
from dassl.utils.tools import get_most_similar_str_to_a_from_b
from safeio.errors import UserError

from .accuracy import score_cell
from .paper import (
    ALL_SHOTS,
    SHOTS,
    SOURCE,
    TITLES,
    PaperNumber,
    files_of,
    paper_numbers,
    read_table,
)
from .results import (
    AVERAGE,
    ELEVEN,
    Run,
    Runs,
    by_label,
    counted,
    method_of,
    natural_order,
    paper_order,
    shots_name,
    trained,
)
from .scores import Score, Scores, average
from .settings import Settings, settings_of
from .table import Cell, Table, number

PAPER_SETTINGS = {"N_CTX": 16, "CSC": False, "CTX_INIT": "", "CLASS_TOKEN_POSITION": "end"}
SEEDS = 5


@dataclass(frozen=True)
class Match:
    """A number of the paper and the corresponding number of this repository."""

    label: str
    paper: PaperNumber
    measured: Score

    @property
    def within_one_std(self) -> bool | None:
        """Whether the paper's number is within one standard deviation; None if there is none."""
        if len(self.measured.accuracies) < 2:
            return None
        return abs(self.measured.mean - self.paper.value) <= self.measured.std


def wanted_tables(names: Sequence[str]) -> list[str]:
    """Return the keys of the requested tables of the paper, such as "a5".

    Raises:
        UserError: a requested table is not available.
    """
    keys = [name.lower().removeprefix("table").strip(" _") for name in names]
    for name, key in zip(names, keys, strict=True):
        if key not in TITLES:
            nearest = get_most_similar_str_to_a_from_b(key, TITLES)
            raise UserError(
                f'--paper "{name}" is not an available table of the paper; did you mean '
                f'"{nearest}"? Available: {", ".join(TITLES)}'
            )
    return list(dict.fromkeys(keys))


def find_matches(runs: Runs, scores: Scores) -> list[Match]:
    """Match each number of the paper with the rows of the same experiment.

    A match has the same backbone, dataset, method, shots and Nemesis settings. `deviations` lists
    the other differences.
    """
    rows = by_label(runs)
    matches = []
    for paper in paper_numbers():
        for label, members in rows.items():
            same_data = [run for run in members if _same_data(run, paper)]
            if not same_data or not all(_same_method(run, paper) for run in same_data):
                continue
            measured = _measured(label, paper, scores)
            if measured is not None and measured.accuracies:
                matches.append(Match(label, paper, measured))
    return matches


def _same_data(run: Run, paper: PaperNumber) -> bool:
    """Return whether a run has the data and shots of a number of the paper."""
    source = trained(run)
    return (
        source["dataset"] in (paper.datasets or (paper.dataset,))
        and source["shots"] in (SHOTS if paper.shots == ALL_SHOTS else (paper.shots,))
        and source["subsample_classes"] == ("base" if paper.table == "a4" else "all")
    )


def _same_method(run: Run, paper: PaperNumber) -> bool:
    """Return whether a run has the method, backbone and Nemesis settings of a paper's number."""
    return (
        method_of(trained(run)) == paper.method
        and _has_backbone(run, paper.backbone)
        and _has_settings(settings_of(run), paper.settings)
    )


def _has_backbone(run: Run, name: str) -> bool:
    digest = str(run.get("weights_sha256") or "none")
    return run.get("backbone") == name or digest in MODELS[name]


def _has_settings(settings: Settings, expected: Mapping[str, Any]) -> bool:
    return all(settings.get(key) == value for key, value in expected.items())


def _measured(label: str, paper: PaperNumber, scores: Scores) -> Score | None:
    """Return this repository's number; an average only if it is over the paper's datasets."""
    column = paper.column
    if paper.datasets:
        found = {
            key[1]
            for key in scores
            if key[0] == label and (key[3] == column) and scores[key].accuracies
        }
        if found - {AVERAGE} != set(paper.datasets):
            return None
    if paper.shots == ALL_SHOTS:
        each = [scores.get((label, paper.dataset, shots, column)) for shots in SHOTS]
        return average(each) if all(each) else None
    return scores.get((label, paper.dataset, paper.shots, column))


def deviations(runs: Runs, matches: Sequence[Match]) -> list[str]:
    """List how the matching runs deviate from the paper's setting."""
    labels = {match.label for match in matches}
    found: dict[str, None] = {}
    for label, run in runs:
        if label not in labels:
            continue
        source = trained(run)
        views = source["config"].get("INPUT", {}).get("TRAIN_VIEWS", 0)
        if views not in (0, "epochs"):  # those equal fresh augmentations
            found[f"trained on {views} cached augmentations of each image"] = None
        for key, value in settings_of(run).items():
            node, _, name = key.rpartition(".")
            own = node == f"TRAINER.{source['trainer'].removesuffix('Nemesis').upper()}"
            wanted = (
                4 if name == "N_CTX" and "CoCoOp" in source["trainer"] else PAPER_SETTINGS.get(name)
            )
            if own and name in PAPER_SETTINGS and value != wanted:
                found[f"{name} {value!r} instead of {wanted!r}"] = None
        if run["split"] != "test":
            found[f"tested on {run['split']}"] = None
    counts = _seed_counts(matches)
    fewest = min(counts, default=SEEDS)
    if fewest < SEEDS:
        few = "as few as " if max(counts) > fewest else ""
        found[f"{few}{counted(fewest, 'seed')} instead of {SEEDS}"] = None
    return list(found)


def _seed_counts(matches: Sequence[Match]) -> set[int]:
    return {len(one.measured.accuracies) for one in matches if _is_over_seeds(one.paper)}


def _is_over_seeds(paper: PaperNumber) -> bool:
    """Return whether the number has one accuracy per seed, unlike H and a mean of means."""
    return paper.dataset != AVERAGE and paper.shots != ALL_SHOTS and paper.column != "H"


def _order(match: Match) -> tuple[Any, ...]:
    paper = match.paper
    return (
        *paper_order(paper.dataset),
        natural_order(match.label),
        paper.shots == ALL_SHOTS,
        paper.shots,
        paper.table,
    )


def paper_table(runs: Runs, matches: Sequence[Match]) -> Table:
    """Tabulate this repository's numbers, the paper's and their differences."""
    ordered = sorted(matches, key=_order)
    differing = deviations(runs, matches)
    notes = f" Deviations from the paper's setting: {'; '.join(differing)}." if differing else ""
    if any(match.paper.shots == ALL_SHOTS for match in matches):
        notes += (
            " Tables A6 and A7 do not state their shots; this repository's number is the mean over "
            "1, 2, 4, 8 and 16."
        )
    several = any(len(match.measured.accuracies) > 1 for match in matches)
    over = " ± standard deviation over seeds" if several else ""
    caption = (
        f"This repository: mean{over}; paper: as printed in {SOURCE}; difference: this repository "
        f"minus paper, in percentage points.{notes}"
    )
    header = ["dataset", "method", "on", "this repository", "paper", "difference", "source"]
    rows, records = [_row(match) for match in ordered], [_record(match) for match in ordered]
    title = "Comparison with the paper"
    return Table("paper", title, header, rows, caption, grouped=True, records=records)


def _row(match: Match) -> list[Cell | str]:
    paper, measured = match.paper, match.measured
    return [
        paper.dataset,
        match.label,
        _on(paper),
        score_cell(measured),
        number(paper.value),
        number(measured.mean - paper.value, sign=True),
        f"Table {paper.table.upper()}",
    ]


def _record(match: Match) -> dict[str, Any]:
    paper, measured = match.paper, match.measured
    return {
        "dataset": paper.dataset,
        "method": match.label,
        "on": _on(paper),
        "ours": measured.mean,
        "ours_std": measured.std,
        "seeds": len(measured.accuracies),
        "lacks": measured.missing,
        "paper": paper.value,
        "difference": measured.mean - paper.value,
        "paper_table": paper.table.upper(),
    }


def _on(paper: PaperNumber) -> str:
    if paper.table == "1":
        return paper.column
    if paper.column != "accuracy":
        return paper.column
    return "mean over shots" if paper.shots == ALL_SHOTS else shots_name(paper.shots)


def printed_tables(keys: Iterable[str]) -> list[Table]:
    """Return the paper's tables as printed."""
    tables = []
    for key in keys:
        columns = "columns are omega" if key == "a10" else "columns 1 to 16 are shots per class"
        for index, file in enumerate(files_of(key)):
            header, rows = read_table(file)
            tables.append(
                Table(
                    f"paper_table_{key}_{index}" if index else f"paper_table_{key}",
                    f"The paper's Table {key.upper()}: {TITLES[key]}",
                    header,
                    [[_printed(cell) for cell in row] for row in rows],
                    f"The paper's own numbers ({SOURCE}), on its own data; they do not apply to "
                    f"runs on other data. Accuracy in %; {columns}.",
                    grouped=header[0] == "dataset" and len(rows) > 6,
                    records=[dict(zip(header, row, strict=True)) for row in rows],
                    tag="the paper's numbers",
                )
            )
    return tables


def _printed(text: str) -> Cell | None:
    try:
        return Cell(text, float(text)) if text else None
    except ValueError:
        return Cell(text)


def why_no_matches(runs: Runs) -> str:
    """Explain why no number of the paper can be compared with these runs."""
    if not any(trained(run)["dataset"] in ELEVEN for _, run in runs):
        data = ", ".join(sorted({run["dataset"] for _, run in runs}))
        return (
            f"The paper's numbers are for other data (its eleven public datasets, not {data}), so "
            "none can be compared; --paper TABLE shows one of its tables separately."
        )
    if not any(_has_backbone(run, name) for _, run in runs for name in ("RN50", "ViT-B/16")):
        return "The paper's numbers are for RN50 and ViT-B/16, so none can be compared."
    return "No row has the settings of a number in the paper."
