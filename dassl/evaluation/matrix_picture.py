"""A confusion matrix as a picture, for ten classes as for hundreds."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from safeio.files import write_atomic

DPI = 150
SIDES = (3.2, 15.0)  # inches: the smallest and the largest side of the matrix
NAMED = 0.14  # inches that a class needs for its name beside it
COUNTED = 0.3  # inches that a cell needs for a number
LONGEST_NAME = 28  # characters


def draw_matrix(matrix: Int[Tensor, "classes classes"], names: Sequence[str], path: Path) -> None:
    """Draw each true class (row) as the shares that its predictions (columns) take.

    Classes are named, and cells numbered, as far as there is room; a class without images is grey.

    Args:
        matrix: counts.
        names: of the classes.
        path: a PNG file.
    """
    # Not pyplot, which would choose a window system for the whole process.
    from matplotlib.figure import Figure

    counts = matrix.numpy()
    side = float(np.clip(COUNTED * len(names), *SIDES))
    cell = side / len(names)
    figure = Figure(figsize=(side + 2.6, side + 1.8), layout="constrained")
    axis = figure.add_subplot()
    image = _draw_shares(axis, counts)
    bar = figure.colorbar(image, ax=axis, shrink=min(1.0, 4.0 / side), aspect=25)
    bar.set_label("share of the true class (%)")
    bar.set_ticks([0, 1, 5, 10, 25, 50, 75, 100])
    bar.outline.set_visible(False)
    if cell >= COUNTED:
        _write_counts(axis, counts)
    named = cell >= NAMED
    if named:
        _name_classes(axis, names, cell)
    what = "class" if named else "label"
    axis.set(xlabel=f"predicted {what}", ylabel=f"true {what}")
    axis.spines[:].set_color("0.8")
    axis.tick_params(color="0.8")
    _save(figure, path)


def _draw_shares(axis: Any, counts: Any) -> Any:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, PowerNorm

    total = counts.sum(axis=1, keepdims=True)
    shares = np.ma.masked_equal(counts, 0) * 100 / np.maximum(total, 1)
    # No mistake is white and the rarest one is not: with many classes it is a few pixels.
    colours = ListedColormap(colormaps["Blues"](np.linspace(0.2, 1, 256)))
    image = axis.imshow(shares, cmap=colours, norm=PowerNorm(0.5, 0, 100), interpolation="nearest")
    for row in np.flatnonzero(total == 0):
        axis.axhspan(row - 0.5, row + 0.5, color="0.9", linewidth=0)
    return image


def _write_counts(axis: Any, counts: Any) -> None:
    total = np.maximum(counts.sum(axis=1), 1)
    for row, column in zip(*np.nonzero(counts), strict=True):
        count = counts[row, column]
        colour = "white" if count > 0.4 * total[row] else "0.15"
        axis.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=7)


def _name_classes(axis: Any, names: Sequence[str], cell: float) -> None:
    longest = LONGEST_NAME
    short = [name if len(name) <= longest else name[: longest - 1] + "…" for name in names]
    size = min(8.0, 72 * cell * 0.8)
    places = range(len(names))
    axis.set_xticks(places, short, rotation=90, fontsize=size, parse_math=False)
    axis.set_yticks(places, short, fontsize=size, parse_math=False)


def _save(figure: Any, path: Path) -> None:
    # The same matrix shall give the same bytes: without matplotlib's version.
    how = {"dpi": DPI, "format": "png", "bbox_inches": "tight", "metadata": {"Software": None}}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # shown as a box
        write_atomic(path, lambda temporary: figure.savefig(temporary, **how))
