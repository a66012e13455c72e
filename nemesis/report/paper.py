"""The paper's numbers, each with the method, data and settings that it was measured with."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from .results import AVERAGE, ELEVEN
from .settings import NEMESIS

PAPER = Path(__file__).parent / "paper_tables"
SOURCE = "Nemesis, ICLR 2024"
SHOTS = (1, 2, 4, 8, 16)
ALL_SHOTS = 0  # placeholder for the mean over SHOTS
PLOT_THREE = ("Caltech101", "DescribableTextures", "OxfordFlowers")
TITLES = {
    "1": "domain generalisation from ImageNet, 16 shots, RN50",
    "2": "PLOT, RN50",
    "3": "PAN's N on FGVCAircraft, RN50",
    "4": "beta, average over eleven datasets, RN50",
    "a4": "base-to-new, CoCoOp, ViT-B/16, 16 shots",
    "a5": "few-shot accuracy, RN50",
    "a6": "PAN's tau, RN50",
    "a7": "PAN's norm, RN50",
    "a10": "visual prompts with PUN, 1,000 training images",
}


@dataclass(frozen=True)
class PaperNumber:
    """One number of the paper, in %: a line of numbers.csv.

    Attributes:
        table: such as "a5".
        method: row name in this repository: CoOp, CoOp+PUN, PLOT+PAN, ...
        dataset: name in this repository; "average" over `datasets`.
        shots: per class; `ALL_SHOTS` for the mean over 1 to 16.
        column: "accuracy", "base", "new", "H", or the dataset tested on.
        value: the accuracy.
        settings: the Nemesis settings, by dotted key, that the number depends on.
    """

    table: str
    method: str
    dataset: str
    shots: int
    column: str
    value: float
    settings: Mapping[str, Any]

    @property
    def backbone(self) -> str:
        """Backbone of the paper's runs."""
        return "ViT-B/16" if self.table == "a4" else "RN50"

    @property
    def datasets(self) -> tuple[str, ...]:
        """Datasets of an average."""
        if self.dataset != AVERAGE:
            return ()
        return PLOT_THREE if self.table == "2" else ELEVEN


def files_of(table: str) -> list[Path]:
    """Return the CSV files of one of the paper's tables, as printed."""
    return sorted(PAPER.glob(f"table_{table}_*.csv"))


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Read the header and rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as opened:
        header, *rows = csv.reader(opened)
    return header, rows


def paper_numbers() -> list[PaperNumber]:
    """Return every accuracy of the paper's tables that `nemesis report` can compare with runs."""
    _, rows = read_table(PAPER / "numbers.csv")
    return [
        PaperNumber(table, method, dataset, int(shots), column, float(value), _settings(settings))
        for table, method, dataset, shots, column, value, settings in rows
    ]


@lru_cache
def _settings(text: str) -> dict[str, Any]:
    return {NEMESIS + name: value for name, value in (yaml.safe_load(text) or {}).items()}
