"""The report's first screen: what was run, and three numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from .comparison import Comparison, one_seed
from .measures import train_seconds
from .paper_comparison import Match
from .results import AVERAGE, Runs, counted, shots_name, trained, trained_on
from .scores import Score, Scores
from .sweep_status import SweepStatus
from .table import number

ONE_SEED = (
    "All runs have one seed, so nothing can be compared: a difference between methods may be "
    "chance. Run at least three seeds."
)
# Protocol -> the column of its average, and what that is.
WHATS = {
    "few_shot": ("accuracy", "accuracy"),
    "base_to_new": ("H", "H"),
    "transfer": (AVERAGE, "accuracy on targets"),
}


@dataclass(frozen=True)
class Card:
    """One number of the first screen.

    Attributes:
        label: the question.
        value: the answer in large letters.
        detail: a few words on it.
    """

    label: str
    value: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.label}: {self.value}{f' ({self.detail})' if self.detail else ''}"


def describe_runs(runs: Runs, sweep: SweepStatus | None) -> list[str]:
    """Describe the runs in a few words each: backbone, size, completeness, code, date, time."""
    found = [run for _, run in runs]
    backbones = sorted({str(run.get("backbone")) for run in found})
    shots = sorted({trained_on(run)[1] for run in found} - {0})
    parts = [
        ", ".join(backbones),
        counted(len({trained_on(run)[0] for run in found}), "dataset"),
        f"{', '.join(map(str, shots))} {'shot' if shots == [1] else 'shots'}" if shots else "",
        counted(len({run["seed"] for run in found}), "seed"),
        sweep.progress if sweep else f"{counted(len(found), 'run')} found",
        _commit([run.get("provenance") or {} for run in found]),
        _date([run["finished"] for run in found if run.get("finished")]),
        _time(sum(train_seconds(run) or 0 for run in found), found),
    ]
    return [part for part in parts if part]


def _commit(origins: Sequence[Mapping[str, Any]]) -> str:
    commits = sorted({str(origin["commit"]) for origin in origins if origin.get("commit")})
    if len(commits) == 1:
        return f"commit {commits[0][:7]}"
    return f"{len(commits)} commits" if commits else ""


def _date(times: Sequence[float]) -> str:
    if not times:
        return ""
    return datetime.fromtimestamp(max(times), timezone.utc).strftime("%Y-%m-%d")


def _time(seconds: float, runs: Sequence[Mapping[str, Any]]) -> str:
    devices = {str(run.get("device") or "").partition(":")[0] for run in runs}
    where = (
        {"cpu": "CPU ", "cuda": "GPU "}.get(next(iter(devices)), "") if len(devices) == 1 else ""
    )
    if seconds >= 5400:
        return f"{seconds / 3600:.0f} {where}hours of training"
    if seconds >= 90:
        return f"{seconds / 60:.0f} {where}minutes of training"
    return f"{seconds:.0f} {where}seconds of training" if seconds else ""


def cards(
    runs: Runs, scores: Scores, found: Comparison | None, matches: Sequence[Match], no_match: str
) -> list[Card]:
    """Return the three cards: best method, average accuracy, and agreement with the paper.

    Args:
        runs: with their row names.
        scores: see `AccuracyTables`.
        found: the comparison of the first screen, if any.
        matches: with the paper's numbers.
        no_match: why there are no matches.
    """
    return [_best(found, one_seed(runs)), _accuracy(scores, found), _paper(runs, matches, no_match)]


def _best(found: Comparison | None, single: bool) -> Card:
    best = found.best if found else None
    if found is None or best is None:
        return Card("best method", "no comparison", "no baseline shares data and seeds with a row")
    whole = found.over_all(best)
    points = f"{number(whole.mean, sign=True).text} points"
    wins = f"{best}: wins {whole.wins} of {counted(len(whole.gains), 'pair')}"
    if single:
        return Card(f"best difference to {found.baseline}", points, f"{wins}, from one seed")
    label = f"best of all, against {found.baseline}"
    return Card(
        label, points, wins if (whole.mean or 0) > 0 else f"{wins}; none is better on average"
    )


def _accuracy(scores: Scores, found: Comparison | None) -> Card:
    """Return the best average at the most shots: of base-to-new runs the best H."""
    present = {key[3] for key, one in scores.items() if one.accuracies}
    preferred = [WHATS[found.protocol]] if found else []
    options = [*preferred, *WHATS.values()]
    column, what = next((pair for pair in options if pair[0] in present), ("", ""))
    if not column:
        return Card("average accuracy", "no number yet")
    own = {key: one for key, one in scores.items() if key[3] == column and one.accuracies}
    most = max(key[2] for key in own)
    places = {key[1] for key in own}
    place = AVERAGE if AVERAGE in places else min(places)
    here = {key[0]: one for key, one in own.items() if key[1:3] == (place, most)}
    at = {label: one for label, one in here.items() if not one.missing.endswith("datasets")} or here
    best = max(at, key=lambda label: at[label].mean)
    rows = [best, *([found.baseline] if found and found.baseline in at else [])]
    average = place == AVERAGE or column == AVERAGE
    label = f"average {what}" if average else f"{what} on {place}"
    return Card(
        f"{label} at {shots_name(most)}" if most else label,
        f"{at[best].mean:.1f} %",
        "; ".join(_named(row, at[row]) for row in dict.fromkeys(rows)),
    )


def _named(label: str, score: Score) -> str:
    text = f"{label} {score.mean:.1f}"
    return f"{text} ({score.missing})" if score.missing else text


def _paper(runs: Runs, matches: Sequence[Match], no_match: str) -> Card:
    label = "agrees with the paper"
    known = [one.within_one_std for one in matches if one.within_one_std is not None]
    if known:
        detail = "numbers of the paper lie within one standard deviation"
        return Card(label, f"{sum(known)} of {len(known)}", detail)
    if matches:
        return Card(label, "not comparable", "one seed has no standard deviation")
    bundled = all(str(trained(run).get("dataset")).startswith("Emoji") for _, run in runs)
    return Card(label, "not comparable", "bundled data" if bundled else no_match)
