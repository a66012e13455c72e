"""Command-line flags that select runs, and functions that load the selected runs."""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from dassl.engine import CONFIG, RESULTS
from dassl.utils.command_line import add_set_flag
from nemesis.adapters.adapter_runs import AdapterRun, read_run
from nemesis.inference.classifier import Classifier, load
from nemesis.inference.load_run import LEARNERS, LoadOptions
from safeio.errors import UserError
from safeio.untrusted import printable
from trainers.core.prompt_checkpoints import IGNORE_MISMATCH

T = TypeVar("T")


def add_load_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose a run's checkpoint, device and settings."""
    add = parser.add_argument
    add("--epoch", type=int, metavar="N", help="which checkpoint; default the best or the last")
    add("--device", help="cpu, cuda, cuda:N or mps; default the run's")
    add("--root", help="folder of the datasets; default the run's")
    add_set_flag(parser, "override any setting, such as MODEL.BACKBONE.NAME; may be repeated")
    text = "use a prompt with other classes, another backbone or another class token position"
    add(IGNORE_MISMATCH, action="store_true", help=text + " than in its training")


def add_third_party_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that describe a run without config.yaml."""
    add = parser.add_argument
    add("--trainer", help="method of a run without config.yaml, such as one of CoOp's own code")
    add("--config-file", metavar="FILE", help="YAML of its method, as for train.py")
    add("--dataset-config-file", metavar="FILE", help="YAML of its dataset, as for train.py")


def add_class_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of other class names."""
    names = parser.add_mutually_exclusive_group()
    text = "classes to use instead of the run's"
    names.add_argument("--classes", nargs="+", metavar="NAME", help=text)
    text = "a text file of them, one name per line"
    names.add_argument("--classes-file", type=Path, metavar="FILE", help=text)


def load_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `nemesis.load` that the flags above give, except for class names."""
    given = vars(arguments)
    return {
        "epoch": arguments.epoch,
        "device": arguments.device,
        "root": arguments.root,
        "settings": dict(arguments.set),
        "ignore_mismatch": arguments.ignore_mismatch,
        "method": given.get("trainer"),
        "config": given.get("config_file"),
        "dataset": given.get("dataset_config_file"),
    }


def load_classifier(arguments: argparse.Namespace) -> Classifier:
    """Load the run of a command that takes one.

    Raises:
        UserError: the file of names cannot be read, or see `nemesis.load`.
    """
    names = arguments.classes
    if arguments.classes_file is not None:
        names = read_names(arguments.classes_file)
    return load(arguments.run_dir, names, **load_options(arguments))


def read_adapters(arguments: argparse.Namespace) -> list[AdapterRun]:
    """Read the adapters of a command's `runs`, without their CLIP.

    Raises:
        UserError: see `read_run`.
    """
    options = LoadOptions(arguments.epoch, dict(arguments.set))
    return [read_run(path, options) for path in arguments.runs]


def read_names(path: Path) -> list[str]:
    """Read class names, one per line, ignoring blank lines.

    Raises:
        UserError: the file cannot be read or contains no names.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError(f"The class names in {path} cannot be read: {reason}") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f"{path} contains no class names; write one per line")
    return names


def for_each_run(paths: Iterable[Path], do: Callable[[Path], T]) -> tuple[dict[Path, T], int]:
    """Call a function with every run of `run_folders`; print its UserErrors to stderr.

    Returns:
        The results by run, and the number of errors.

    Raises:
        UserError: the only run's.
    """
    results, errors, runs = {}, 0, run_folders(paths)
    for run_dir in runs:
        try:
            results[run_dir] = do(run_dir)
        except UserError as error:
            named = str(error).startswith((f'"{run_dir}" ', f"{run_dir}: "))
            text = str(error) if named else f"{run_dir}: {error}"
            if len(runs) == 1:
                raise UserError(text) from error
            errors += 1
            print(printable(f"error: {text}"), file=sys.stderr)
    return results, errors


def run_folders(paths: Iterable[Path]) -> list[Path]:
    """Return the given runs and all runs with learned prompts below the given folders, each once.

    A folder that contains no run is returned unchanged, so that loading it raises the error.

    Raises:
        UserError: none of the folders exists.
    """
    paths = list(paths)
    if not any(path.is_dir() for path in paths):
        raise UserError(f'"{paths[0]}" holds no run: there is no such folder')
    found: dict[Path, None] = {}
    for path in paths:
        below = [] if (path / CONFIG).is_file() else sorted(path.rglob(RESULTS))
        runs = [file.parent for file in below if (file.parent / LEARNERS[0]).is_dir()]
        found.update(dict.fromkeys(runs or [path]))
    return list(found)


def print_figures(*paths: Path) -> None:
    """Print where figures are; each PNG has a PDF and its data as CSV beside it."""
    for path in paths:
        print(f"Figure: {path} (with .pdf and .csv)")
