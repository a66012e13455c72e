"""The section `gpu` of bench: all checks of a device, each section within its own time."""

import argparse
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from dassl.config import load_config
from dassl.utils import choose_device, reuse_loaded
from safeio.errors import UserError

from ..report import Report, environment
from . import parity, steps, whole_runs
from .findings import Findings, Size

# The sections in order of importance, with the share of the time that each may take at most.
SECTIONS: dict[str, tuple[Callable[[Size, Findings], None], float]] = {
    "machine": (steps.machine, 0.04),
    "parity": (parity.parity_with_cpu, 0.14),
    "determinism": (parity.determinism, 0.05),
    "resuming": (whole_runs.resuming, 0.06),
    "steps": (steps.steps, 0.3),
    "batches of steps": (steps.batches, 0.17),
    "batches of runs": (whole_runs.batches, 0.2),
    "runs": (whole_runs.runs, 0.12),
    "golden cases": (whole_runs.golden, 0.15),
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    add = parser.add_argument
    add("--device", default="cuda", help="default cuda; cpu, cuda:N, mps")
    add("--tiny", action="store_true", help="the bundled CLIP, few classes: a dry run")
    add("--seconds", type=float, default=430, help="for all sections (default 430)")
    add("--sections", nargs="+", metavar="NAME", help=f"some of: {', '.join(SECTIONS)}")
    add("--root", type=Path, default=Path("data"), metavar="DIR", help="data root (default: data)")


def run(arguments: argparse.Namespace) -> Report:
    """Check the device and return the report, which is also written after every measurement.

    Raises:
        UserError: there is no such device or section, or no time.
    """
    chosen = arguments.sections or list(SECTIONS)
    if unknown := [name for name in chosen if name not in SECTIONS]:
        raise UserError(f"--sections: {unknown[0]!r} is unknown; choose from {', '.join(SECTIONS)}")
    if arguments.seconds <= 0:
        raise UserError(f"--seconds is {arguments.seconds}, but must be above 0")
    device = choose_device(load_config(opts=["DEVICE", arguments.device]))
    settings = environment(device, tiny=arguments.tiny)
    findings = Findings(arguments.output_dir, arguments.seconds, settings)
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        reuse_loaded(),
    ):
        warnings.simplefilter("ignore")
        size = Size(device, arguments.tiny, Path(folder), arguments.root)
        for name in chosen:
            check, share = SECTIONS[name]
            findings.begin(name, share * arguments.seconds)
            check(size, findings)
    return findings.report()
