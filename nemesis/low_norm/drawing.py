"""Helpers of the study's figures: colours, axes style, and saving as PNG, PDF and CSV."""

import csv
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nemesis.report.figures import plt
from safeio.files import write_atomic

BETTER, WORSE, LEARNED = "#D55E00", "#56B4E9", "#000000"  # of Okabe and Ito's palette


def save(figure: Any, path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write the figure as PNG and PDF, and its data as CSV, then close the figure.

    Args:
        figure: of Matplotlib.
        path: of the PNG.
        header: column names of the CSV.
        rows: of the CSV.

    Returns:
        The path of the PNG.
    """
    for suffix in ("png", "pdf"):  # the temporary file's suffix does not name the format
        write = functools.partial(figure.savefig, dpi=160, format=suffix)
        write_atomic(path.with_suffix(f".{suffix}"), write)
    plt.close(figure)

    def write_rows(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])

    write_atomic(path.with_suffix(".csv"), write_rows)
    return path


def dress(axis: Any, **labels: str) -> None:
    """Set labels and a light horizontal grid, and remove the upper and right spines."""
    axis.set(**labels)
    axis.grid(axis="y", color="0.9")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def file_stem(*parts: object) -> str:
    """Join parts to a file name, with `_` for all other characters than letters, digits, `._-`."""
    text = "_".join(str(part) for part in parts)
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text)
