"""Table and figure of the continual protocol."""

import statistics
from collections.abc import Mapping
from pathlib import Path

from matplotlib import pyplot as plt

from nemesis.report.figures import Lines, save
from nemesis.report.scores import Score
from nemesis.report.table import Cell, Entry, Table
from safeio.files import write_json

from .protocol import ZERO_SHOT, Outcome, Protocol

NAME = "continual"
Outcomes = Mapping[str, Mapping[int, Outcome]]  # by label and seed


def make_table(outcomes: Outcomes, protocol: Protocol) -> Table:
    """Return the measures of every method, mean and standard deviation over the seeds."""
    rows: list[list[Entry]] = []
    columns = ["method"]
    for label, found in outcomes.items():
        measures = [one.measures(outcomes[ZERO_SHOT][seed]) for seed, one in found.items()]
        columns[1:] = measures[0]
        scores = [Score(tuple(one[name] for one in measures)) for name in measures[0]]
        rows.append([label, *(Cell(score.text, score.mean) for score in scores)])
    title = f"{protocol.tasks} tasks of {protocol.dataset}, {protocol.shots} shots"
    caption = (
        "Accuracy in percent on all classes seen so far among their names: the mean over the "
        "tasks, and after the last. Forgetting and the drop on classes still to come are points."
    )
    return Table(NAME, title, columns, rows, caption)


def write_report(outcomes: Outcomes, protocol: Protocol, folder: Path) -> Table:
    """Write continual.md, .csv, .tex, .json, .png and .pdf; return the table."""
    table = make_table(outcomes, protocol)
    table.write(folder)
    content = {
        label: {str(seed): one.as_dict() for seed, one in found.items()}
        for label, found in outcomes.items()
    }
    write_json(content, folder / f"{NAME}.json")
    lines = Lines(list(outcomes))
    with lines.rc():
        figure, axis = plt.subplots(figsize=(5.2, 3.9), layout="constrained")
        for label, found in outcomes.items():
            seen = zip(*(one.seen for one in found.values()), strict=True)
            means = [statistics.fmean(accuracies) for accuracies in seen]
            axis.plot(range(1, len(means) + 1), means, **lines.style(label))
        axis.set(xlabel="tasks learned", ylabel="accuracy on the seen classes (%)")
        axis.set_xticks(range(1, protocol.tasks + 1))
        axis.grid(axis="y", color="0.5", alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", frameon=False, fontsize=8.5, ncols=2)
    for suffix in ("png", "pdf"):
        save(figure, folder / f"{NAME}.{suffix}")
    plt.close(figure)
    return table
