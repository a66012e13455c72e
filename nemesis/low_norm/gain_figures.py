"""Figures of the gains: over shots beside a rescaled vector, and against the effect's frequency."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nemesis.report.figures import COLOURS, MARKERS, plt

from .drawing import BETTER, WORSE, dress, save
from .frequency import SeedMean
from .gain import Gains, Place

PANELS = 4  # per row
SHOTS_MAP = "viridis_r"


def draw_effect(
    rows: Sequence[Gains], cell: SeedMean, factor: float, baseline: str, path: Path
) -> Path:
    """Draw the gain over shots, and beside it the accuracy with each vector rescaled.

    Args:
        rows: in the left panel; bands are standard errors over datasets and seeds.
        cell: the baseline's prompts in the right panel.
        factor: of RESCALE.
        baseline: its row.
        path: of the PNG.

    Returns:
        The path.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    data: list[list[Any]] = []
    for index, row in enumerate(rows):
        points = row.over_shots()
        x = range(len(points))
        means, errors = zip(*points.values(), strict=True)
        colour = COLOURS[index % len(COLOURS)]
        marker = MARKERS[index % len(MARKERS)]
        left.plot(x, means, color=colour, marker=marker, label=row.label)
        low = [mean - error for mean, error in zip(means, errors, strict=True)]
        high = [mean + error for mean, error in zip(means, errors, strict=True)]
        left.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        left.set_xticks(list(x), [str(shots) for shots in points])
        data += [["gain", row.label, shots, *points[shots]] for shots in points]
    left.axhline(0, color="0.4", linewidth=1)
    dress(left, xlabel="shots", ylabel="accuracy, points", title=f"Difference to {baseline}")
    left.legend(frameon=False, fontsize="small")
    data += _draw_rescaled(right, cell, factor)
    return save(figure, path, ["panel", "row", "shots or position", "value", "error"], data)


def _draw_rescaled(axis: Any, cell: SeedMean, factor: float) -> list[list[Any]]:
    run = cell.studies[0].run
    positions = cell.positions(("rescale", factor))
    changes = {j: position.accuracy - cell.accuracy for j, position in positions.items()}
    colours = [BETTER if positions[j].better else WORSE for j in changes]
    axis.bar([j + 1 for j in changes], list(changes.values()), color=colours)
    axis.axhline(0, color="0.4", linewidth=1)
    axis.set_xticks([j + 1 for j in changes])
    shots = "1 shot" if run["shots"] == 1 else f"{run['shots']} shots"
    title = f"One vector times {factor:g} ({run['method']}, {run['dataset']}, {shots})"
    dress(axis, xlabel="position of the vector", ylabel="change of accuracy, points", title=title)
    return [["rescaled", run["method"], j + 1, change, ""] for j, change in changes.items()]


def draw_gain(rows: Sequence[Gains], frequencies: Mapping[Place, int], path: Path) -> Path:
    """Draw every row's mean gains against the effect's frequency, one panel per row."""
    columns = min(PANELS, len(rows))
    lines = -(-len(rows) // columns)
    size = (3.2 * columns + 1, 2.8 * lines)
    figure, axes = plt.subplots(
        lines, columns, figsize=size, squeeze=False, sharex=True, layout="constrained"
    )
    data: list[list[Any]] = []
    for axis, row in zip(axes.flat, rows, strict=False):
        data += _scatter(axis, row, frequencies)
    for axis in list(axes.flat)[len(rows) :]:
        axis.set_visible(False)
    figure.supxlabel("frequency of the Low-Norm Effect in the baseline's prompts")
    figure.supylabel("gain, points")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    return save(figure, path, ["row", "dataset", "shots", "frequency", "gain"], data)


def _scatter(axis: Any, row: Gains, frequencies: Mapping[Place, int]) -> list[list[Any]]:
    shots = sorted({number for _, number in row.by_place})
    colour = plt.get_cmap(SHOTS_MAP)
    data: list[list[Any]] = []
    for index, number in enumerate(shots):
        places = [p for p in row.by_place if p[1] == number and p in frequencies]
        x, y = [frequencies[p] for p in places], [row.mean(p) for p in places]
        label = f"{number} shot{'s' if number > 1 else ''}"
        axis.scatter(x, y, color=colour((index + 0.5) / len(shots)), label=label, s=22)
        data += [[row.label, *p, frequencies[p], row.mean(p)] for p in places]
    axis.axhline(0, color="0.4", linewidth=1)
    found = row.with_frequency(frequencies)
    rho = f", correlation {found.rho:+.2f}" if found else ""
    dress(axis)
    axis.set_title(f"{row.label}{rho}", fontsize="medium")
    return data
