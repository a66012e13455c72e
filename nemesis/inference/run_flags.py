"""Command-line flags that select runs, and functions that load the selected runs."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from dassl.engine import CONFIG, RESULTS
from safeio.errors import UserError
from safeio.untrusted import printable
from trainers.core.features.evaluation import FrozenCLIPTrainer
from trainers.core.prompt_checkpoints import IGNORE_MISMATCH

from .load_run import LEARNER, Setup, known_classnames, load_run, run_config

T = TypeVar("T")


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Add RUN_DIR and the flags that choose its checkpoint, classes and settings."""
    add = parser.add_argument
    add("run_dir", type=Path, metavar="RUN_DIR", help="folder of a finished run")
    names = parser.add_mutually_exclusive_group()
    names.add_argument(
        "--classes", nargs="+", metavar="NAME", help="classes to use instead of the run's"
    )
    names.add_argument(
        "--classes-file", type=Path, metavar="FILE", help="a text file of them, one name per line"
    )
    add("--load-epoch", type=int, metavar="N", help="which checkpoint; default the best or last")
    add_setup_flags(parser)
    add("--root", help="folder of the datasets, for runs that do not record their class names")
    add(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="override any setting, such as DEVICE or MODEL.BACKBONE.NAME; must be the last flag",
    )


def add_setup_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that describe a run without config.yaml, and --ignore-mismatch."""
    add = parser.add_argument
    add("--trainer", help="method of a run without config.yaml, such as one of CoOp's own code")
    add("--config-file", metavar="FILE", help="YAML of its method, as for train.py")
    add("--dataset-config-file", metavar="FILE", help="YAML of its dataset, as for train.py")
    add_ignore_flag(parser)


def add_ignore_flag(parser: argparse.ArgumentParser) -> None:
    """Add --ignore-mismatch."""
    parser.add_argument(
        IGNORE_MISMATCH,
        action="store_true",
        help="use a prompt with other classes, another backbone or another class token position "
        "than in its training",
    )


def load_classifier(arguments: argparse.Namespace) -> FrozenCLIPTrainer:
    """Load the run that the flags of `add_run_flags` select, without printing.

    Raises:
        UserError: --opts has an odd number of words, the file of names cannot be read, or see
            `load_quietly`.
    """
    opts = list(arguments.opts)
    if len(opts) % 2:
        raise UserError(f"--opts takes pairs KEY VALUE, but got {' '.join(opts)}")
    if arguments.root is not None:
        opts = ["DATASET.ROOT", arguments.root, *opts]
    classnames = arguments.classes
    if arguments.classes_file is not None:
        classnames = read_names(arguments.classes_file)
    return load_quietly(arguments.run_dir, arguments, arguments.load_epoch, opts, classnames)


def load_quietly(
    run_dir: Path,
    arguments: argparse.Namespace,
    epoch: int | None = None,
    opts: Sequence[str] = (),
    classnames: Sequence[str] | None = None,
) -> FrozenCLIPTrainer:
    """Load a run with the flags of `add_setup_flags`, without printing.

    The dataset is read only if no file of the run names the classes, as in zero-shot and
    third-party runs.

    Raises:
        UserError: see `load_run`.
    """
    setup = Setup(arguments.trainer, arguments.config_file, arguments.dataset_config_file)
    run_config(run_dir, opts, setup)  # errors in it shall not mention the class names
    names = known_classnames(run_dir, epoch) if classnames is None else classnames
    try:
        with Path(os.devnull).open("w") as sink, contextlib.redirect_stdout(sink):
            return load_run(
                run_dir, opts, epoch, names is None, names, setup, arguments.ignore_mismatch
            )
    except UserError as error:
        if names is not None:
            raise
        raise UserError(
            f"{error} (this run does not record its class names, so its dataset is read; "
            "--classes avoids that)"
        ) from error


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


def run_folders(paths: Iterable[Path]) -> list[Path]:
    """Return the given runs and all runs with learned prompts below the given folders, each once.

    A folder that contains no run is returned unchanged, so that loading it raises the error.
    """
    found: dict[Path, None] = {}
    for path in paths:
        below = [] if (path / CONFIG).is_file() else sorted(path.rglob(RESULTS))
        runs = [file.parent for file in below if (file.parent / LEARNER).is_dir()]
        found.update(dict.fromkeys(runs or [path]))
    return list(found)


def for_each_run(paths: Iterable[Path], do: Callable[[Path], T]) -> tuple[dict[Path, T], int]:
    """Call a function with every run of `run_folders`; print its UserErrors to stderr.

    Returns:
        The results by run, and the number of errors.
    """
    results, errors = {}, 0
    for run_dir in run_folders(paths):
        try:
            results[run_dir] = do(run_dir)
        except UserError as error:
            errors += 1
            print(printable(f"error: {run_dir}: {error}"), file=sys.stderr)
    return results, errors
