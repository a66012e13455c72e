"""Figures of finished runs; readable in print and for colour-blind readers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from dassl.utils import write_atomic

from .results import Cell, Cells

# Okabe and Ito's palette, told apart by markers as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def plot_accuracy_over_shots(
    cells: Cells, shots: Sequence[int], path: Path, baseline: str = "ZeroshotCLIP"
) -> None:
    """Accuracy over shots, one panel a dataset: means, bands of one standard deviation.

    The baseline is a dashed line, since it learns from no shots.
    """
    datasets = sorted({dataset for _, dataset, _ in cells})
    methods = sorted({method for method, _, _ in cells} - {baseline})
    figure, axes = plt.subplots(
        1,
        len(datasets),
        figsize=(3.8 * len(datasets) + 1.5, 3.4),
        squeeze=False,
        layout="constrained",
    )
    for axis, dataset in zip(axes[0], datasets, strict=True):
        for index, method in enumerate(methods):
            series = {n: cells[key] for n in shots if (key := (method, dataset, n)) in cells}
            if series:
                _draw_series(axis, series, method, index)
        if zero := cells.get((baseline, dataset, 0)):
            axis.axhline(zero.mean, color="0.35", linestyle="--", label=baseline)
        axis.set_xscale("log", base=2)
        axis.set_xticks(list(shots), [str(n) for n in shots])
        axis.minorticks_off()
        axis.set(title=dataset, xlabel="labelled images per class", ylabel="test accuracy (%)")
        axis.grid(axis="y", color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
    pairs = (zip(*axis.get_legend_handles_labels(), strict=True) for axis in axes[0])
    labels = {label: line for pair in pairs for line, label in pair}
    figure.legend(labels.values(), labels.keys(), loc="outside right center", frameon=False)
    suffix = path.suffix.removeprefix(".")
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=160, format=suffix))
    plt.close(figure)


def _draw_series(axis: Any, series: dict[int, Cell], label: str, index: int) -> None:
    x = list(series)
    mean = [cell.mean for cell in series.values()]
    low = [cell.mean - cell.std for cell in series.values()]
    high = [cell.mean + cell.std for cell in series.values()]
    colour = COLOURS[index % len(COLOURS)]
    axis.plot(x, mean, color=colour, marker=MARKERS[index % len(MARKERS)], label=label)
    axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
