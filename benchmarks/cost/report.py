"""Write a benchmark's entries as Markdown tables and bench.json."""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from safeio.files import write_atomic, write_json

from .cases import CASES, SIDES, STUDY_IMAGES, TEST_BATCH, TEST_IMAGES
from .measure import GIB
from .run import Effort, Entries, Entry
from .synthetic import N_CTX
from .targets import TARGETS

NOT_MEASURED = "-"
NOTES = f"""\
Reference: OpenAI's CLIP with CoOp's published code (`benchmarks/cost/reference_clip.py`); this
repository: the registered trainers. Seconds are medians of alternating repetitions; peak memory is
of one run in a separate process, above the loaded model. {N_CTX} context tokens, class token at the
end, fp32, batch 32 (CoCoOp: 4), random weights and images, ImageNet's class names.

- PAN, reference: one more text pass per position; the batch's images are not encoded again.
- CoOp step, cached views: the reference is the CoOp step.
- Corruption study, per prompt: the reference encodes text and the {STUDY_IMAGES} images for each of
  its prompts, as one process per corruption does; this repository encodes the images once for
  {N_CTX + 1} prompts (each position rescaled by 0.5, and the original); its seconds are divided by
  {N_CTX + 1}.
- Evaluation of a second prompt: the reference evaluates as for the first; this repository has
  cached image features. The test set has {TEST_IMAGES} images in batches of {TEST_BATCH}; the ratio
  is proportional to its size."""


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
    """Format one Markdown table with a row per case."""
    rows = []
    for key, case in CASES.items():
        reference, own = (entries.find(backbone, classes, key, side) for side in SIDES)
        if own is None:
            continue
        rows.append(
            [
                case.title,
                _seconds(reference),
                _seconds(own),
                _ratio(reference.seconds if reference else None, own.seconds),
                _gib(reference),
                _gib(own),
                _ratio(reference.above if reference else None, own.above),
            ]
        )
    header = ["case", "reference, s", "this repository, s", "ratio"]
    header += ["reference, GiB", "this repository, GiB", "ratio"]
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def target_rows(entries: Entries) -> list[dict[str, Any]]:
    """Return every target with its bound, the value (None: not measured) and whether it is met."""
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
    """Return the versions, hardware and settings that the numbers depend on."""
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
    """Format the report: targets, a table per backbone and number of classes, and notes."""
    measured_with = ", ".join(f"{key} {value}" for key, value in settings.items())
    parts = ["# Cost of a step", f"Measured with {measured_with}."]
    parts += ["## Targets", _target_table(entries)]
    for backbone, classes in dict.fromkeys((e.backbone, e.classes) for e in entries.all):
        parts += [f"## {backbone}, {classes} classes", _table(entries, backbone, classes)]
    worst = ", ".join(f"{value:.0e} ({name})" for name, value in differences.items())
    parts += [
        "## Method",
        NOTES,
        f"Largest relative difference between the two implementations before measuring: {worst}.",
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
    """Write bench.md and bench.json to the folder and return the Markdown."""
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
