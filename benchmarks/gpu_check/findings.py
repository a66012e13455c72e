"""What a check has found so far, written after every measurement."""

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..report import Report, measured_with, table

NAME = "gpu"
FAULTS = "faults.log"


@dataclass(frozen=True)
class Size:
    """What is checked.

    Attributes:
        device: of all measurements.
        tiny: the bundled CLIP and few classes, for a dry run.
        folder: of runs and weights.
        data: root of the datasets.
    """

    device: torch.device
    tiny: bool
    folder: Path
    data: Path

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that the device has; tf32 is fp32 with MODEL.TF32."""
        fast = ("tf32", "amp", "fp16", "bf16")
        return ("fp32", *(fast if self.device.type == "cuda" else ("amp", "bf16")))


class Findings:
    """Runs measurements within their time and records their results.

    Args:
        folder: of the report.
        seconds: for all sections.
        settings: of the machine, for the report.
    """

    def __init__(self, folder: Path, seconds: float, settings: Mapping[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self._end = self._section_end = time.monotonic() + seconds
        self._section = ""

    def begin(self, section: str, seconds: float) -> None:
        """Begin a section, which may take so many seconds."""
        self._section, self.rows[section] = section, []
        self._section_end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that the section still has."""
        return min(self._end, self._section_end) - time.monotonic()

    def measure(self, name: str, work: Callable[..., Mapping[str, Any]], *arguments: Any) -> None:
        """Record what `work(*arguments)` returns, or its error; skip it without time left."""
        start = time.perf_counter()
        row: dict[str, Any] = {"": name}
        try:
            row |= work(*arguments) if self.left() > 0 else {"note": "no time left"}
        except Exception as error:
            row["note"] = f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:150]}"
            with (self.folder / FAULTS).open("a", encoding="utf-8") as file:
                file.write(f"{self._section}: {name}\n{traceback.format_exc()}\n")
        self.rows[self._section].append(row)
        took = time.perf_counter() - start
        print(f"{self._section}: {name}, {took:.1f} s {row.get('note', '')}", flush=True)
        self.report().write(self.folder)

    def report(self) -> Report:
        """Return a table per section."""
        parts: list[Any] = ["# GPU check", measured_with(self.settings)]
        for section, rows in self.rows.items():
            columns = list(dict.fromkeys(key for row in rows for key in row if key != "note"))
            columns += ["note"] if any("note" in row for row in rows) else []
            cells = [[row.get(column) for column in columns] for row in rows]
            if rows:
                parts.append(table(section.replace(" ", "_"), section, columns, cells))
        return Report(NAME, parts, {"settings": dict(self.settings), "sections": self.rows})
