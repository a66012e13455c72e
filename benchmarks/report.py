"""What a benchmark found, as Markdown, JSON, CSV and LaTeX."""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dassl.utils import package_versions
from nemesis.report.table import Cell, Table
from safeio.files import write_json, write_text

STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Report:
    """The result of a benchmark.

    Attributes:
        name: stem of its files.
        parts: paragraphs of Markdown, and tables; the one with the report's name is also written
            as CSV and LaTeX.
        contents: what the JSON file contains.
    """

    name: str
    parts: Sequence[Any]
    contents: Mapping[str, Any]

    def write(self, folder: Path) -> str:
        """Write the files to the folder and return the Markdown."""
        write_json(dict(self.contents), folder / f"{self.name}.json")
        for part in self.parts:
            if isinstance(part, Table) and part.name == self.name:
                part.write(folder)
        texts = [part if isinstance(part, str) else part.markdown() for part in self.parts]
        text = "\n\n".join(part.strip() for part in texts) + "\n"
        write_text(text, folder / f"{self.name}.md")
        return text


def table(
    name: str, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = ""
) -> Table:
    """Return a table whose fractions have three digits; None is a dash."""
    shown = [
        [Cell(f"{value:.3g}", value) if isinstance(value, float) else value for value in row]
        for row in rows
    ]
    return Table(name, title, columns, shown, caption)


def measured_with(settings: Mapping[str, Any]) -> str:
    """Return the sentence that states the settings."""
    return f"Measured with {', '.join(f'{key} {value}' for key, value in settings.items())}."


def environment(device: torch.device, **settings: Any) -> dict[str, Any]:
    """Return the versions, the hardware and the settings that the numbers depend on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        **package_versions(),
        "device": str(device),
        "hardware": name,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        **settings,
    }


def process_status(key: str) -> int:
    """Return a number of /proc/self/status in bytes, or 0 if the system has no such file.

    Unlike getrusage's peak, VmHWM of a new process does not begin with that of its parent.
    """
    lines = STATUS.read_text().splitlines() if STATUS.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)
