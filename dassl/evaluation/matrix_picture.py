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
    """Draw the share of each predicted class (column) in each true class (row) as a PNG.

    Class names and counts are printed if the cells are large enough. Rows without images are grey.
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, PowerNorm
    from matplotlib.figure import Figure  # not pyplot, which would set the process's backend

    counts = matrix.numpy()
    total = counts.sum(axis=1, keepdims=True)
    side = float(np.clip(COUNT_CELL * len(names), *SIDES))
    figure = Figure(figsize=(side + 2.6, side + 1.8), layout="constrained")
    axis = figure.add_subplot()
    shares = np.ma.masked_equal(counts, 0) * 100 / np.maximum(total, 1)
    # Only zeros are white, so that rare errors, a few pixels among many classes, stay visible.
    colours = ListedColormap(colormaps["Blues"](np.linspace(0.2, 1, 256)))
    image = axis.imshow(shares, cmap=colours, norm=PowerNorm(0.5, 0, 100), interpolation="nearest")
    for row in np.flatnonzero(total == 0):
        axis.axhspan(row - 0.5, row + 0.5, color="0.9", linewidth=0)
    bar = figure.colorbar(image, ax=axis, shrink=min(1.0, 4.0 / side), aspect=25)
    bar.set_label("share of the true class (%)")
    bar.set_ticks([0, 1, 5, 10, 25, 50, 75, 100])
    bar.outline.set_visible(False)
    _label(axis, names, counts, shares, side / len(names))
    axis.spines[:].set_color("0.8")
    axis.tick_params(color="0.8")
    options: dict[str, Any] = {"dpi": DPI, "format": "png", "bbox_inches": "tight"}
    options["metadata"] = {"Software": None}  # so that equal matrices give equal files
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # drawn as a box
        write_atomic(path, lambda temporary: figure.savefig(temporary, **options))


def _label(axis: Any, names: Sequence[str], counts: Any, shares: Any, cell: float) -> None:
    if cell >= COUNT_CELL:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 40 else "0.15"
            text = f"{counts[row, column]}"
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    kind = "class" if cell >= NAME_CELL else "label"
    axis.set(xlabel=f"predicted {kind}", ylabel=f"true {kind}")
    if cell >= NAME_CELL:
        longest = MAX_NAME_LENGTH
        short = [name if len(name) <= longest else name[: longest - 1] + "…" for name in names]
        style: dict[str, Any] = {"fontsize": min(8.0, 72 * cell * 0.8), "parse_math": False}
        axis.set_xticks(range(len(names)), short, rotation=90, **style)
        axis.set_yticks(range(len(names)), short, **style)
