"""What the study's figures have in common: three files each, and axes without clutter."""

import csv
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from analysis.figures import plt
from safeio.files import write_atomic

BETTER, WORSE, LEARNED = "#D55E00", "#56B4E9", "#000000"  # of Okabe and Ito's palette


def save(figure: Any, path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write the figure as PNG and PDF, and its data as CSV beside them.

    Args:
        figure: is closed.
        path: of the PNG.
        header: the CSV's columns.
        rows: their values.

    Returns:
        The path of the PNG.
    """
    for suffix in ("png", "pdf"):  # named to savefig, which is given a temporary file
        write = functools.partial(figure.savefig, dpi=160, format=suffix)
        write_atomic(path.with_suffix(f".{suffix}"), write)
    plt.close(figure)

    def write_rows(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])

    write_atomic(path.with_suffix(".csv"), write_rows)
    return path


def dress(axis: Any, **labels: str) -> None:
    """Labels, a light grid for the eye to read values off, no frame above and on the right."""
    axis.set(**labels)
    axis.grid(axis="y", color="0.9")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def file_stem(*parts: object) -> str:
    """A file name of these parts, whatever stands in them."""
    text = "_".join(str(part) for part in parts)
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text)
