"""From a benchmark's entries to Markdown tables and bench.json."""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from safeio.files import write_atomic, write_json

from .cases import CASES, OURS, PLAIN, STUDY_IMAGES, TEST_BATCH, TEST_IMAGES
from .measure import GIB
from .run import Effort, Entries, Entry
from .synthetic import N_CTX
from .targets import TARGETS

NOT_MEASURED = "-"
NOTES = f"""\
Plain: OpenAI's CLIP with CoOp's published way of driving it (`analysis/cost/plain.py`); ours: the
registered trainers. Seconds are medians of repetitions by turns; peak memory is that of one run in
a process of its own, above the loaded model. {N_CTX} context tokens, class token at the end, fp32,
batch 32 (CoCoOp: 4), random weights and images, ImageNet's class names.

- PAN, plain: one more text pass per position; the batch's images are not encoded again.
- CoOp step, cached views: plain is the CoOp step.
- Corruption study, per prompt: plain encodes text and the {STUDY_IMAGES} images for each of its
  prompts, as one process per corruption does; ours encodes the images once for {N_CTX + 1} prompts
  (each position rescaled by 0.5, and the original), and is divided by {N_CTX + 1}.
- Evaluation of a second prompt: plain evaluates as for the first; ours has the image features.
  The test set has {TEST_IMAGES} images in batches of {TEST_BATCH}; a larger one makes the ratio
  larger in proportion."""


def _seconds(entry: Entry | None) -> str:
    if entry is None or entry.seconds is None:
        return entry.skipped if entry and entry.skipped else NOT_MEASURED
    return f"{entry.seconds:.3g}"


def _gib(entry: Entry | None) -> str:
    if entry is None or entry.above is None:
        return NOT_MEASURED
    return f"{entry.above / GIB:.2f}"


def _ratio(top: float | None, bottom: float | None) -> str:
    return f"{top / bottom:.3g}" if top and bottom else NOT_MEASURED


def _table(entries: Entries, backbone: str, classes: int) -> str:
    """One Markdown table: a row a case."""
    rows = []
    for key, case in CASES.items():
        plain, ours = (entries.find(backbone, classes, key, side) for side in (PLAIN, OURS))
        if ours is None:
            continue
        rows.append(
            [
                case.title,
                _seconds(plain),
                _seconds(ours),
                _ratio(plain.seconds if plain else None, ours.seconds),
                _gib(plain),
                _gib(ours),
                _ratio(plain.above if plain else None, ours.above),
            ]
        )
    header = ["case", "plain s", "ours s", "plain / ours", "plain GiB", "ours GiB", "plain / ours"]
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def target_rows(entries: Entries) -> list[dict[str, Any]]:
    """Every promise with its bound, the value (None: not measured) and whether it is kept."""
    rows = []
    for target in TARGETS:
        value = target.value(entries)
        rows.append(
            {
                "title": target.title,
                "target": f"{target.relation} {target.bound:g}",
                "value": value,
                "met": None if value is None else target.met(value),
            }
        )
    return rows


def _target_table(entries: Entries) -> str:
    answers = {None: NOT_MEASURED, True: "yes", False: "no"}
    rows = [
        [
            row["title"],
            row["target"],
            NOT_MEASURED if row["value"] is None else f"{row['value']:.3g}",
            answers[row["met"]],
        ]
        for row in target_rows(entries)
    ]
    header = ["RN50, fp32", "target", "measured", "met"]
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def environment(device: torch.device, effort: Effort) -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": str(device),
        "hardware": name,
        "cores": os.cpu_count(),
        "threads": effort.threads,
        "repetitions": effort.repetitions,
    }


def markdown(
    entries: Entries,
    settings: Mapping[str, Any],
    differences: Mapping[str, float],
    figures: Sequence[Path],
) -> str:
    """The report: targets, a table per backbone and number of classes, how it was measured."""
    said = ", ".join(f"{key} {value}" for key, value in settings.items())
    parts = ["# What a step costs", f"Measured with {said}.", "## Targets", _target_table(entries)]
    for backbone, classes in dict.fromkeys((e.backbone, e.classes) for e in entries.all):
        parts += [f"## {backbone}, {classes} classes", _table(entries, backbone, classes)]
    worst = ", ".join(f"{value:.0e} ({name})" for name, value in differences.items())
    parts += [
        "## How",
        NOTES,
        f"The largest relative difference between plain and ours before measuring: {worst}.",
        *(f"![{path.stem.replace('_', ' ')}]({path.name})" for path in figures),
    ]
    return "\n\n".join(parts) + "\n"


def write_report(
    folder: Path,
    entries: Entries,
    settings: Mapping[str, Any],
    differences: Mapping[str, float],
    figures: Sequence[Path],
) -> str:
    """Write bench.md and bench.json into the folder, each atomically; returns the Markdown."""
    text = markdown(entries, settings, differences, figures)
    write_atomic(folder / "bench.md", lambda path: path.write_text(text, encoding="utf-8"))
    contents = {
        "settings": dict(settings),
        "parity": dict(differences),
        "targets": target_rows(entries),
        "entries": [entry.as_json() for entry in entries.all],
    }
    write_json(contents, folder / "bench.json")
    return text
