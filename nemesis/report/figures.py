"""Figures of finished runs, readable in print and for colour-blind readers."""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from safeio.files import write_atomic
from safeio.untrusted import spreadsheet_text

from .results import Cell
from .scores import BASELINE, Score, natural_order, paper_order

# Okabe and Ito's palette; markers distinguish the colours, dashes distinguish its repetitions.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
Points = Mapping[tuple[str, str, int], Cell]  # by method, dataset and shots
COLUMNS = 4  # panels per row
# Placeholders for the page's own colours in an embedded SVG.
INK, FAINT = "#010203", "#040506"


def plot_accuracy_over_shots(
    cells: Points,
    shots: Sequence[int],
    path: Path,
    baseline: str = BASELINE,
) -> None:
    """Plot accuracy over shots, one panel per dataset: means with bands of one standard deviation.

    The baseline is a dashed line, since it does not depend on shots. Names are printed verbatim,
    including `$` and `_`.

    Args:
        cells: by method, dataset and shots; "average" is the last panel.
        shots: ticks of the horizontal axis.
        path: the file; its suffix determines the format.
        baseline: prefix of the names of methods without training.
    """
    datasets = panels_of(cells)
    methods = lines_of(cells, baseline)
    columns = min(len(datasets), COLUMNS)
    rows = math.ceil(len(datasets) / columns)
    with matplotlib.rc_context({"text.parse_math": False}):
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(3.8 * columns + 1.5, 3.4 * rows),
            squeeze=False,
            layout="constrained",
        )
        for axis, dataset in zip(axes.flat, datasets, strict=False):
            _draw_panel(axis, cells, dataset, shots, methods, baseline)
            axis.set(title=dataset, xlabel="labelled images per class", ylabel="test accuracy (%)")
        for axis in axes.flat[len(datasets) :]:
            axis.set_axis_off()
        pairs = (zip(*axis.get_legend_handles_labels(), strict=True) for axis in axes.flat)
        labels = {label: line for pair in pairs for line, label in pair}
        figure.legend(labels.values(), labels.keys(), loc="outside right center", frameon=False)
        suffix = path.suffix.removeprefix(".")
        # Without a date, the same runs give the same file.
        metadata = {"CreationDate": None} if suffix == "pdf" else None
        write_atomic(path, lambda to: figure.savefig(to, dpi=160, format=suffix, metadata=metadata))
    plt.close(figure)


def panels_of(cells: Points) -> list[str]:
    """Return the datasets in the papers' order, the average last."""
    datasets = {dataset for _, dataset, _ in cells}
    return sorted(datasets, key=lambda name: (name == "average", paper_order(name)))


def lines_of(cells: Points, baseline: str = BASELINE) -> list[str]:
    """Return the trained methods in the order of their colours."""
    methods = {method for method, _, _ in cells if not method.startswith(baseline)}
    return sorted(methods, key=natural_order)


def panel_svg(
    cells: Points,
    dataset: str,
    shots: Sequence[int],
    baseline: str = BASELINE,
) -> str:
    """Draw one panel as an SVG element in the page's font and colours, without a legend.

    Text and axes have the colour of the page's text; the grid has its variable --line.
    """
    parts = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    # The salt makes identifiers reproducible and different between panels.
    style: Any = dict.fromkeys(parts, INK)
    style |= {"svg.fonttype": "none", "svg.hashsalt": f"panel {dataset}", "text.parse_math": False}
    buffer = io.StringIO()
    with matplotlib.rc_context(style):
        figure, axis = plt.subplots(figsize=(3.7, 2.7), layout="constrained")
        _draw_panel(axis, cells, dataset, shots, lines_of(cells, baseline), baseline, FAINT)
        axis.set(xlabel="labelled images per class", ylabel="accuracy (%)")
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
        plt.close(figure)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(width|height)="[\d.]+pt" ?', "", svg, count=2)  # the page sets the size
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1; font-family: inherit", svg)
    # A style element would apply to the whole page.
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[\w.]+">', "<g>", svg)  # the same in every panel
    svg = svg.replace(INK, "currentColor").replace("#000000", "currentColor")
    return svg.replace(FAINT, "var(--line)")


def _draw_panel(
    axis: Any,
    cells: Points,
    dataset: str,
    shots: Sequence[int],
    methods: Sequence[str],
    baseline: str,
    grid: str = "0.9",
) -> None:
    for index, method in enumerate(methods):
        series = {n: cells[key] for n in shots if (key := (method, dataset, n)) in cells}
        if series:
            _draw_series(axis, series, method, index)
    flat = [(key[0], cell) for key, cell in cells.items() if key[1:] == (dataset, 0)]
    for index, (method, zero) in enumerate(pair for pair in flat if pair[0].startswith(baseline)):
        style = DASHES[1 + index % (len(DASHES) - 1)]
        axis.axhline(zero.mean, color="0.5", linestyle=style, label=method)
    axis.set_xscale("log", base=2)
    axis.set_xticks(list(shots), [str(n) for n in shots])
    axis.minorticks_off()
    axis.grid(axis="y", color=grid)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_series(axis: Any, series: dict[int, Cell], label: str, index: int) -> None:
    x = list(series)
    mean = [cell.mean for cell in series.values()]
    low = [cell.mean - cell.std for cell in series.values()]
    high = [cell.mean + cell.std for cell in series.values()]
    colour = COLOURS[index % len(COLOURS)]
    axis.plot(
        x,
        mean,
        color=colour,
        marker=MARKERS[index % len(MARKERS)],
        linestyle=DASHES[index // len(COLOURS) % len(DASHES)],
        label=label,
    )
    axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def write_points(cells: Points, path: Path) -> None:
    """Write the figure's points as CSV, one per line."""
    datasets = panels_of(cells)
    ordered = sorted(cells, key=lambda key: (datasets.index(key[1]), key[0], key[2]))

    def write(to: Path) -> None:
        with to.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["dataset", "method", "shots", "mean", "std", "seeds", "lacks"])
            for method, dataset, shots in ordered:
                cell = cells[method, dataset, shots]
                missing = cell.missing if isinstance(cell, Score) else ""
                numbers = (f"{cell.mean:.4f}", f"{cell.std:.4f}", len(cell.accuracies))
                names = (spreadsheet_text(dataset), spreadsheet_text(method))
                writer.writerow([*names, shots, *numbers, missing])

    write_atomic(path, write)
