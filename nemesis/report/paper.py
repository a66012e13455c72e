"""The paper's numbers, each with the method, data and settings that it was measured with."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .results import AVERAGE, ELEVEN
from .settings import NEMESIS

PAPER = Path(__file__).parent / "paper_tables"
SOURCE = "Nemesis, ICLR 2024"
SHOTS = (1, 2, 4, 8, 16)
ALL_SHOTS = 0  # placeholder for the mean over SHOTS
# The paper's dataset names that differ from the registered ones.
NAMES = {
    "DTD": "DescribableTextures",
    "Flowers102": "OxfordFlowers",
    "ImageNet-Sketch": "ImageNetSketch",
    "ImageNet-A": "ImageNetA",
    "ImageNet-R": "ImageNetR",
    "Average": AVERAGE,
}
PLOT_THREE = ("Caltech101", "DescribableTextures", "OxfordFlowers")
PER_DATASET_OMEGA = {"ImageNet": 10.0, "OxfordPets": 50.0, "Food101": 50.0}
PAN = {"TAU": 0.5, "N": 1, "SELECT": True}
TITLES = {
    "1": "domain generalisation from ImageNet, 16 shots, RN50",
    "2": "PLOT, RN50",
    "3": "PAN's N on FGVCAircraft, RN50",
    "4": "beta, average over eleven datasets, RN50",
    "a4": "base-to-new, CoCoOp, ViT-B/16, 16 shots",
    "a5": "few-shot accuracy, RN50",
    "a6": "PAN's tau, RN50",
    "a7": "PAN's norm, RN50",
}
FILES = {
    "1": ("table_1_domain_generalization.csv",),
    "2": ("table_2_plot.csv",),
    "3": ("table_3_pan_ablation_fgvc_aircraft.csv",),
    "4": ("table_4_beta.csv",),
    "a4": ("table_a4_base_to_new_average.csv", "table_a4_base_to_new_fragment.csv"),
    "a5": ("table_a5_few_shot.csv",),
    "a6": ("table_a6_tau.csv",),
    "a7": ("table_a7_norm.csv",),
}


@dataclass(frozen=True)
class PaperNumber:
    """One number of the paper, in %.

    Attributes:
        table: such as "a5".
        method: row name in this repository: CoOp, CoOp+PUN, PLOT+PAN, ...
        dataset: name in this repository; "average" over `datasets`.
        shots: per class; `ALL_SHOTS` for the mean over 1 to 16.
        column: "accuracy", "base", "new", "H", or the dataset tested on.
        value: the accuracy.
        settings: the Nemesis settings, by dotted key, that the number depends on.
        datasets: datasets of an average.
    """

    table: str
    method: str
    dataset: str
    shots: int
    column: str
    value: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    datasets: tuple[str, ...] = ()

    @property
    def backbone(self) -> str:
        """Backbone of the paper's runs."""
        return "ViT-B/16" if self.table == "a4" else "RN50"


def read_table(file: str) -> tuple[list[str], list[list[str]]]:
    """Read the header and rows of one of the paper's tables."""
    with (PAPER / file).open(newline="", encoding="utf-8") as opened:
        header, *rows = csv.reader(opened)
    return header, rows


def paper_numbers() -> list[PaperNumber]:
    """Return every accuracy of the paper's tables that `nemesis report` can compare with runs."""
    readers = {
        "1": _table_1,
        "2": _few_shot,
        "3": _few_shot,
        "4": _table_4,
        "a4": _table_a4,
        "a5": _few_shot,
        "a6": _over_shots,
        "a7": _over_shots,
    }
    return [number for key, reader in readers.items() for number in reader(key)]


def _records(key: str) -> Iterator[dict[str, str]]:
    for file in FILES[key]:
        header, rows = read_table(file)
        for row in rows:
            yield dict(zip(header, row, strict=True))


def _method(name: str) -> str:
    """Translate the paper's `CoOp+Nemesis (PAN)` to `CoOp+PAN`."""
    base, _, variant = name.partition("+Nemesis")
    return base + variant.replace(" (", "+").removesuffix(")")


def _settings(method: str, row: Mapping[str, str], table: str, dataset: str) -> dict[str, Any]:
    """Return the settings that a run of this row must have, by dotted key."""
    if "+" not in method:
        return {}
    default = 0.1 if table == "2" else PER_DATASET_OMEGA.get(dataset, 1.0)
    settings: dict[str, Any] = {"OMEGA": float(row.get("omega") or default), "NORM": "two"}
    if "PAN" in method:
        settings |= PAN
    if "N" in row:
        settings |= {"N": int(row["N"] or 1), "SELECT": row["selection"] != "no"}
    return {NEMESIS + key: value for key, value in settings.items()}


def _few_shot(key: str) -> Iterator[PaperNumber]:
    for row in _records(key):
        method = _method(row["method"])
        dataset = row.get("dataset", "FGVCAircraft")
        dataset = NAMES.get(dataset, dataset)
        settings = _settings(method, row, key, dataset)
        over = PLOT_THREE if dataset == AVERAGE else ()
        for shots in SHOTS:
            value = float(row[str(shots)])
            yield PaperNumber(key, method, dataset, shots, "accuracy", value, settings, over)


def _table_1(key: str) -> Iterator[PaperNumber]:
    for row in _records(key):
        method = _method(row["method"])
        settings = _settings(method, row, key, "ImageNet")
        for name, value in list(row.items())[2:]:
            column = NAMES.get(name, name)
            yield PaperNumber(key, method, "ImageNet", 16, column, float(value), settings)


def _table_4(key: str) -> Iterator[PaperNumber]:
    """Yield the numbers of Table 4, whose omega differs per dataset and is not a setting."""
    for row in _records(key):
        for name, value in list(row.items())[1:]:
            beta = float(name)
            method = "CoOp" + ("+PUN" if beta > 0 else "") + ("+PAN" if beta < 1 else "")
            settings = {NEMESIS + "BETA": beta}
            shots, accuracy = int(row["shots"]), float(value)
            yield PaperNumber(key, method, AVERAGE, shots, "accuracy", accuracy, settings, ELEVEN)


def _table_a4(key: str) -> Iterator[PaperNumber]:
    for row in _records(key):
        method = _method(row["method"])
        dataset = row.get("dataset", "Average")
        dataset = NAMES.get(dataset, dataset)
        over = ELEVEN if dataset == AVERAGE else ()
        settings = _settings(method, row, key, dataset)
        for name, column in (("base", "base"), ("new", "new"), ("harmonic_mean", "H")):
            value = float(row[name])
            yield PaperNumber(key, method, dataset, 16, column, value, settings, over)


def _over_shots(key: str) -> Iterator[PaperNumber]:
    for row in _records(key):
        (name, setting), *values = row.items()
        own = {"TAU": float(setting)} if name == "tau" else {"NORM": setting}
        for dataset, value in values:
            settings: dict[str, Any] = {"OMEGA": 1.0, "NORM": "two", **PAN, **own}
            yield PaperNumber(
                key,
                "CoOp+PAN",
                NAMES.get(dataset, dataset),
                ALL_SHOTS,
                "accuracy",
                float(value),
                {NEMESIS + name: value for name, value in settings.items()},
            )
