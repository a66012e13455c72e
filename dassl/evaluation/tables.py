"""Write the evaluator's results per class to CSV files."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

from safeio.files import write_atomic
from safeio.untrusted import spreadsheet_text

from .measures import ClassCounts


def save_matrix_table(
    matrix: Int[Tensor, "classes classes"], names: Sequence[str], path: Path
) -> None:
    """Write a confusion matrix with a row per true class and a column per predicted class."""
    rows = [[name, *counts] for name, counts in zip(names, matrix.tolist(), strict=True)]
    _save([["truth", *names], *rows], path)


def save_class_table(counts: ClassCounts, names: Sequence[str], path: Path) -> None:
    """Write label, name, number of images, hits and accuracy (%; may be empty) of each class."""
    columns = zip(names, counts.true.tolist(), counts.hits.tolist(), strict=True)
    rows = [
        [label, name, total, correct, f"{100 * correct / total:.4f}" if total else ""]
        for label, (name, total, correct) in enumerate(columns)
    ]
    _save([["label", "classname", "total", "correct", "accuracy"], *rows], path)


def _save(rows: Iterable[Sequence[Any]], path: Path) -> None:
    safe = [[spreadsheet_text(v) if isinstance(v, str) else v for v in row] for row in rows]

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(safe)

    write_atomic(path, write)
