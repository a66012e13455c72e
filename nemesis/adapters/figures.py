"""Figures of merged, interpolated and pruned adapters."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemesis.low_norm.drawing import dress, save
from nemesis.report.figures import COLOURS, MARKERS, plt

from .studies import MERGE_COLUMNS, Interpolation, Pruning


def draw_merge(rows: Sequence[Sequence[Any]], path: Path) -> Path:
    """Draw the accuracies of each run's row of `MERGE_COLUMNS` as bars."""
    figure, axis = plt.subplots(figsize=(1.6 * len(rows) + 2.4, 3.4), layout="constrained")
    names = MERGE_COLUMNS[4:]
    data = [[cell.value if cell is not None else 0.0 for cell in row[4:]] for row in rows]
    for at, name in enumerate(names):
        places = [number + 0.27 * (at - 1) for number in range(len(rows))]
        axis.bar(places, [row[at] for row in data], 0.25, color=COLOURS[at], label=name)
    axis.set_xticks(range(len(rows)), [Path(row[0]).name for row in rows])
    dress(axis, ylabel="test accuracy (%)")
    figure.legend(loc="outside lower center", ncols=len(names), frameon=False)
    paths = [row[0] for row in rows]
    return save(figure, path, ["run", *names], [[p, *d] for p, d in zip(paths, data, strict=True)])


def draw_interpolation(found: Interpolation, path: Path) -> Path:
    """Draw loss and accuracy along the line, of factors and products."""
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
    rows: list[list[Any]] = []
    for at, (way, scores) in enumerate(found.scores.items()):
        style = {"color": COLOURS[at], "marker": MARKERS[at], "markersize": 4}
        label = f"{way}, barrier {found.barriers[way]:.4f}"
        axes[0].plot(found.weights, [one.loss for one in scores], label=label, **style)
        axes[1].plot(found.weights, [one.accuracy for one in scores], **style)
        rows += [[way, w, *one] for w, one in zip(found.weights, scores, strict=True)]
    dress(axes[0], xlabel="weight of the second run", ylabel="cross-entropy")
    dress(axes[1], xlabel="weight of the second run", ylabel="test accuracy (%)")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return save(figure, path, ["kind", "weight", "loss", "accuracy"], rows)


def draw_pruning(found: Pruning, path: Path) -> Path:
    """Draw the Shapley values of the accuracy, and the accuracy as blocks are switched off."""
    width = max(7.6, 0.5 * len(found.players) + 4)
    figure, axes = plt.subplots(1, 2, figsize=(width, 3.4), layout="constrained")
    values = found.phi[:, 0].tolist()
    axes[0].bar(range(len(values)), values, color=COLOURS[0])
    axes[0].set_xticks(range(len(values)), found.players, rotation=90)
    dress(axes[0], ylabel="Shapley value (% accuracy)")
    accuracies = [one.accuracy for one in found.removed]
    axes[1].plot(range(len(accuracies)), accuracies, color=COLOURS[1], marker=MARKERS[1])
    dress(axes[1], xlabel="blocks switched off, least valuable first", ylabel="test accuracy (%)")
    rows = zip(found.players, values, found.phi[:, 1].tolist(), strict=True)
    return save(figure, path, ["block", "shapley_accuracy", "shapley_minus_loss"], rows)
