"""What a benchmark found, as Markdown and JSON."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from dassl.utils import package_versions
from safeio.files import write_atomic, write_json

NOT_MEASURED = "-"
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Report:
    """The result of a benchmark.

    Attributes:
        name: stem of its files.
        parts: paragraphs of Markdown.
        contents: what the JSON file contains.
    """

    name: str
    parts: Sequence[str]
    contents: Mapping[str, Any]

    def write(self, folder: Path) -> str:
        """Write NAME.md and NAME.json to the folder and return the Markdown."""
        text = "\n\n".join(self.parts) + "\n"
        write_atomic(folder / f"{self.name}.md", lambda path: path.write_text(text, "utf-8"))
        write_json(dict(self.contents), folder / f"{self.name}.json")
        return text


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Format rows as Markdown; numbers get three digits, None becomes a dash."""
    cells = [[cell(value) for value in row] for row in rows]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True)


def cell(value: Any) -> str:
    """Format one cell of a table."""
    if value is None:
        return NOT_MEASURED
    return f"{value:.3g}" if isinstance(value, float) else str(value)


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
