"""Figure 1b: how often corruptions raise accuracy. Figure A1: accuracy and norm by position."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from nemesis.report.figures import COLOURS, MARKERS, plt

from .corruption import REPLACE, RESCALE
from .drawing import BETTER, LEARNED, WORSE, dress, file_stem, save
from .frequency import Key, Position, SeedMean, Setting
from .layer_figures import draw_layers

NAMES = {REPLACE: "REPLACE, std", RESCALE: "RESCALE, factor"}
# The hatch distinguishes the bars without colours.
GAIN: dict[str, Any] = {"facecolor": BETTER, "edgecolor": LEARNED, "linewidth": 0.6, "hatch": "///"}
LOSS: dict[str, Any] = {"facecolor": WORSE, "edgecolor": LEARNED, "linewidth": 0.6}
NORM: dict[str, Any] = {"facecolor": "0.75", "edgecolor": LEARNED, "linewidth": 0.6}
PANELS_PER_ROW = 4
LEARNED_NORM: dict[str, Any] = {
    "color": LEARNED,
    "linestyle": "",
    "marker": "_",
    "markersize": 9,
    "markeredgewidth": 1.6,
}


def draw_figures(
    cells: Mapping[Key, SeedMean], settings: Sequence[Setting], folder: Path
) -> list[Path]:
    """Draw all figures for which the cells have data; return the PNGs."""
    paths = []
    if any(cell.low_norm_frequency(settings) is not None for cell in cells.values()):
        paths.append(draw_frequency(cells, settings, folder / "figure_1b.png"))
    for key, cell in cells.items():
        for kind in (REPLACE, RESCALE):
            tested = [s for s in settings if s[0] == kind and cell.positions(s)]
            if tested:
                stem = file_stem("figure_a1", kind, key[0], key[1], f"{key[2]}shots")
                paths.append(draw_positions(key, cell, tested, folder / f"{stem}.png"))
    return [*paths, *draw_layers(cells, settings, folder)]


def draw_frequency(cells: Mapping[Key, SeedMean], settings: Sequence[Setting], path: Path) -> Path:
    """Draw Figure 1b: low-norm frequency over shots; a panel per method, a line per dataset.

    Frequencies of prompts with unlike numbers of (position, factor) pairs are drawn in percent.
    """
    points = {
        key: frequency
        for key, cell in cells.items()
        if (frequency := cell.low_norm_frequency(settings)) is not None
    }
    factors = [value for kind, value in settings if kind == RESCALE and value < 1]
    pairs = {key: len(factors) * cells[key].length for key in points}
    percent = len(set(pairs.values())) > 1
    heights = {key: 100 * n / pairs[key] if percent else float(n) for key, n in points.items()}
    methods = sorted({method for method, _, _ in points})
    datasets = sorted({dataset for _, dataset, _ in points})
    shots = sorted({count for _, _, count in points})
    figure, axes = _panels(len(methods))
    for number, (axis, method) in enumerate(zip(axes, methods, strict=True)):
        for index, dataset in enumerate(datasets):
            line = {n: heights[key] for n in shots if (key := (method, dataset, n)) in heights}
            if line:
                _draw_line(axis, line, dataset, index)
        axis.set_xscale("log", base=2)
        axis.set_xticks(shots, [str(count) for count in shots])
        axis.minorticks_off()
        lowest = number >= len(methods) - PANELS_PER_ROW
        dress(axis, title=method, xlabel="labelled images per class" if lowest else "")
    axes[0].set_ylim(bottom=0)  # after all lines, since it also fixes the shared upper limit
    unit = " (%)" if percent else f", of {max(pairs.values())}"
    figure.supylabel(f"(position, factor) pairs that raise accuracy{unit}", fontsize=10)
    handles = (zip(*axis.get_legend_handles_labels(), strict=True) for axis in axes)
    labels = {label: line for found in handles for line, label in found}
    figure.legend(labels.values(), labels.keys(), loc="outside right center", frameon=False)
    rows = [[*key, count, pairs[key]] for key, count in points.items()]
    return save(figure, path, ["method", "dataset", "shots", "frequency", "of"], rows)


def _panels(count: int) -> tuple[Any, list[Any]]:
    """Return a figure and its panels, at most PANELS_PER_ROW beside each other."""
    columns = min(count, PANELS_PER_ROW)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        *(rows, columns),
        figsize=((3.6 if rows == 1 else 2.6) * columns + 2.2, (3.6 if rows == 1 else 2.5) * rows),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    return figure, list(axes.flat[:count])


def _draw_line(axis: Any, line: dict[int, float], label: str, index: int) -> None:
    """Draw one dataset's line; if colours repeat, lines are dashed and markers hollow."""
    colour, again = COLOURS[index % len(COLOURS)], index >= len(COLOURS)
    axis.plot(
        list(line),
        list(line.values()),
        color=colour,
        marker=MARKERS[index % len(MARKERS)],
        markerfacecolor="white" if again else colour,
        linestyle="--" if again else "-",
        label=label,
    )


def draw_positions(key: Key, cell: SeedMean, settings: Sequence[Setting], path: Path) -> Path:
    """Draw Figure A1: accuracy and norm at every position, one column per setting.

    The bars start at the learned prompt's accuracy, so bars above the line are improvements.
    """
    figure, axes = plt.subplots(
        2,
        len(settings),
        figsize=(2.4 * len(settings) + 1.4, 4.8),
        squeeze=False,
        layout="constrained",
    )
    rows = []
    for column, (kind, value) in enumerate(settings):
        positions = cell.positions((kind, value))
        upper, lower = axes[:, column]
        if column:
            upper.sharey(axes[0, 0])
        _draw_accuracies(upper, cell.accuracy, positions)
        _draw_norms(lower, positions)
        dress(upper, title=f"{NAMES[kind]} {value:g}")
        dress(lower, xlabel="position")
        for j, at in positions.items():
            rows.append([kind, value, j, at.accuracy, cell.accuracy, at.norm, at.original_norm])
    axes[0, 0].set_ylabel("test accuracy (%)")
    axes[1, 0].set_ylabel("norm of the vector")
    method, dataset, shots = key
    title = f"{method}, {dataset}, {shots} shot(s), mean of {len(cell.studies)} seed(s)"
    figure.suptitle(title, fontsize=11)
    figure.legend(handles=_legend(), loc="outside lower center", ncols=5, frameon=False)
    header = ["kind", "value", "position", "accuracy", "learned_accuracy", "norm", "learned_norm"]
    return save(figure, path, header, rows)


def _draw_accuracies(axis: Any, learned: float, positions: Mapping[int, Position]) -> None:
    changes = [at.accuracy - learned for at in positions.values()]
    bars = axis.bar(list(positions), changes, bottom=learned, width=0.75)
    for bar, at in zip(bars, positions.values(), strict=True):
        bar.set(**(GAIN if at.better else LOSS))
    axis.axhline(learned, color=LEARNED, linewidth=1.2)


def _draw_norms(axis: Any, positions: Mapping[int, Position]) -> None:
    axis.bar(list(positions), [at.norm for at in positions.values()], width=0.75, **NORM)
    learned = [at.original_norm for at in positions.values()]
    axis.plot(list(positions), learned, **LEARNED_NORM)


def _legend() -> list[Any]:
    return [
        Patch(**GAIN, label="corrupted: better"),
        Patch(**LOSS, label="corrupted: not better"),
        Line2D([], [], color=LEARNED, linewidth=1.2, label="accuracy, learned"),
        Patch(**NORM, label="norm, corrupted"),
        Line2D([], [], **LEARNED_NORM, label="norm, learned"),
    ]
