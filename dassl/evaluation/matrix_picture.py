"""Draw a confusion matrix of ten to hundreds of classes as a PNG image."""

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
NAME_CELL = 0.14  # inches: minimum cell size to print class names
COUNT_CELL = 0.3  # inches: minimum cell size to print counts
MAX_NAME_LENGTH = 28  # characters


def draw_matrix(matrix: Int[Tensor, "classes classes"], names: Sequence[str], path: Path) -> None:
    """Draw the share of each predicted class (column) in each true class (row).

    Class names and counts are printed if the cells are large enough. Rows without images are grey.

    Args:
        matrix: counts.
        names: class names.
        path: the PNG file to write.
    """
    # Not pyplot, which would set the backend of the whole process.
    from matplotlib.figure import Figure

    counts = matrix.numpy()
    side = float(np.clip(COUNT_CELL * len(names), *SIDES))
    cell = side / len(names)
    figure = Figure(figsize=(side + 2.6, side + 1.8), layout="constrained")
    axis = figure.add_subplot()
    image = _draw_shares(axis, counts)
    bar = figure.colorbar(image, ax=axis, shrink=min(1.0, 4.0 / side), aspect=25)
    bar.set_label("share of the true class (%)")
    bar.set_ticks([0, 1, 5, 10, 25, 50, 75, 100])
    bar.outline.set_visible(False)
    if cell >= COUNT_CELL:
        _write_counts(axis, counts)
    named = cell >= NAME_CELL
    if named:
        _name_classes(axis, names, cell)
    kind = "class" if named else "label"
    axis.set(xlabel=f"predicted {kind}", ylabel=f"true {kind}")
    axis.spines[:].set_color("0.8")
    axis.tick_params(color="0.8")
    _save(figure, path)


def _draw_shares(axis: Any, counts: Any) -> Any:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, PowerNorm

    total = counts.sum(axis=1, keepdims=True)
    shares = np.ma.masked_equal(counts, 0) * 100 / np.maximum(total, 1)
    # Only zeros are white, so that rare errors, a few pixels among many classes, stay visible.
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
    longest = MAX_NAME_LENGTH
    short = [name if len(name) <= longest else name[: longest - 1] + "…" for name in names]
    size = min(8.0, 72 * cell * 0.8)
    ticks = range(len(names))
    axis.set_xticks(ticks, short, rotation=90, fontsize=size, parse_math=False)
    axis.set_yticks(ticks, short, fontsize=size, parse_math=False)


def _save(figure: Any, path: Path) -> None:
    # Without matplotlib's version, equal matrices give equal files.
    options = {"dpi": DPI, "format": "png", "bbox_inches": "tight", "metadata": {"Software": None}}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # drawn as a box
        write_atomic(path, lambda temporary: figure.savefig(temporary, **options))
