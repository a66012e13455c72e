"""Figures of the cost over PAN's N and over the number of classes, with the paper's values."""

import csv
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemesis.report.figures import COLOURS, MARKERS, plt
from safeio.files import write_atomic

from .cases import REFERENCE, REPOSITORY, SIDES
from .run import Entries
from .tables import read_paper, relative

OVER_N = {f"pan{n}": n for n in (1, 2, 4, 8, 16)}
OVER_CLASSES = {"pun": ("PUN", "PUN_x"), "pan1": ("PAN", "PAN_x"), "plot": ("PLOT", "PLOT_x")}


@dataclass(frozen=True)
class Series:
    """One line of a figure; `index` selects colour and marker."""

    label: str
    points: dict[int, float]
    index: int
    dashed: bool = False


def _measured(values: dict[int, float | None]) -> dict[int, float]:
    return {x: value for x, value in values.items() if value is not None}


def cost_over_n(entries: Entries, backbone: str, classes: int) -> list[Series]:
    """Return PAN step / CoOp step for each N: this repository, reference, the paper's Table A9."""
    series = [
        Series(
            f"{SIDES[side]}, {classes} classes",
            _measured(
                {n: relative(entries, backbone, classes, key, side) for key, n in OVER_N.items()}
            ),
            index,
        )
        for index, side in enumerate((REPOSITORY, REFERENCE))
    ]
    rows = {row["dataset"]: row for row in read_paper("a9")}
    for index, dataset in enumerate(("ImageNet", "Caltech101"), 2):
        row = rows[dataset]
        points = {int(key[2:]): float(value) for key, value in row.items() if key[:2] == "N="}
        label = f"paper: {dataset}, {row['classes']} classes, its own GPU"
        series.append(Series(label, points, index, dashed=True))
    return series


def cost_over_classes(entries: Entries, backbone: str) -> list[Series]:
    """Return step / CoOp step of PUN, PAN and PLOT for each number of classes, and Table A8's."""
    counts = sorted({entry.classes for entry in entries.all})
    rows = read_paper("a8")
    series = []
    for index, (key, (label, column)) in enumerate(OVER_CLASSES.items()):
        own = {count: relative(entries, backbone, count, key, REPOSITORY) for count in counts}
        paper = {int(row["classes"]): float(row[column]) for row in rows if row[column]}
        series.append(Series(f"{label}, this repository", _measured(own), index))
        series.append(Series(f"{label}, paper, its own GPU", paper, index, dashed=True))
    return series


def draw_all(entries: Entries, folder: Path) -> list[Path]:
    """Draw the figures of every backbone and return the PNG paths.

    Each figure is also written as PDF, and its points as CSV.
    """
    paths = []
    for backbone in dict.fromkeys(entry.backbone for entry in entries.all):
        name = "".join(letter if letter.isalnum() else "_" for letter in backbone)
        counts = {e.classes for e in entries.all if e.backbone == backbone and e.case in OVER_N}
        timed = sorted(
            count for count in counts if relative(entries, backbone, count, "pan1", REPOSITORY)
        )
        if not timed:
            continue
        classes = 100 if 100 in timed else timed[-1]
        over_n = cost_over_n(entries, backbone, classes)
        over_classes = cost_over_classes(entries, backbone)
        for stem, series, label in (
            (f"cost_over_n_{name}", over_n, "N, corrupted positions per batch"),
            (f"cost_over_classes_{name}", over_classes, "classes"),
        ):
            path = folder / f"{stem}.png"
            _draw(series, path, f"{backbone}: step / CoOp step of the same kind", label)
            paths.append(path)
    return paths


def _draw(series: Sequence[Series], path: Path, title: str, xlabel: str) -> None:
    figure, axis = plt.subplots(figsize=(5.4, 3.8), layout="constrained")
    for line in (line for line in series if line.points):
        points = dict(sorted(line.points.items()))
        axis.plot(
            list(points),
            list(points.values()),
            color=COLOURS[line.index],
            marker=MARKERS[line.index],
            markerfacecolor="white" if line.dashed else COLOURS[line.index],
            linestyle="--" if line.dashed else "-",
            linewidth=1 if line.dashed else 1.8,
            markersize=4,
            label=line.label,
        )
    _format_axis(axis, series, title, xlabel)
    for suffix in ("png", "pdf"):  # explicit, since savefig writes to a temporary file name
        save = functools.partial(figure.savefig, dpi=160, format=suffix)
        write_atomic(path.with_suffix(f".{suffix}"), save)
    plt.close(figure)
    write_atomic(path.with_suffix(".csv"), lambda to: _write_csv(series, to))


def _format_axis(axis: Any, series: Sequence[Series], title: str, xlabel: str) -> None:
    every = sorted({x for line in series for x in line.points})
    axis.set_xscale("log", base=2 if every[-1] <= 16 else 10)
    ticks = every if every[-1] <= 16 else [10, 100, 1000]
    axis.set_xticks(ticks, [str(x) for x in ticks])
    axis.minorticks_off()
    axis.set_yscale("log", base=2)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set(title=title, xlabel=xlabel, ylabel="times a CoOp step")
    axis.axhline(1, color="0.6", linewidth=0.8)
    axis.grid(axis="y", color="0.9")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)


def _write_csv(series: Sequence[Series], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["series", "x", "times_coop_step"])
        for line in series:
            writer.writerows([line.label, x, f"{y:.4g}"] for x, y in sorted(line.points.items()))
