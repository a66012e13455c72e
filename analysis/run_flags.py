"""The flags by which commands name runs, and the runs that they name."""

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
from trainers.core.prompt_checkpoints import FLAG

from .load_run import LEARNER, Setup, known_classnames, load_run, run_config

T = TypeVar("T")


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Add RUN_DIR and what else says which classifier is meant; --opts takes the rest."""
    add = parser.add_argument
    add("run_dir", type=Path, metavar="RUN_DIR", help="folder of a finished run")
    names = parser.add_mutually_exclusive_group()
    names.add_argument(
        "--classes", nargs="+", metavar="NAME", help="other classes than the run was trained on"
    )
    names.add_argument(
        "--classes-file", type=Path, metavar="FILE", help="the same, from a file with a name a line"
    )
    add("--load-epoch", type=int, metavar="N", help="which checkpoint; default the best or last")
    add_setup_flags(parser)
    add("--root", help="folder of the datasets, where a run's class names come from its data")
    add(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="override any setting, such as DEVICE or MODEL.BACKBONE.NAME; stands last",
    )


def add_setup_flags(parser: argparse.ArgumentParser) -> None:
    """Add what says how a folder without config.yaml was trained, and --ignore-mismatch."""
    add = parser.add_argument
    add("--trainer", help="method of a folder without config.yaml, as CoOp's own code leaves it")
    add("--config-file", metavar="FILE", help="YAML of its method, as for train.py")
    add("--dataset-config-file", metavar="FILE", help="YAML of its dataset, as for train.py")
    add_ignore_flag(parser)


def add_ignore_flag(parser: argparse.ArgumentParser) -> None:
    """Add --ignore-mismatch."""
    parser.add_argument(
        FLAG,
        action="store_true",
        help="use a prompt for other classes, with another backbone or at another place in the "
        "text than it was learned with",
    )


def load_classifier(arguments: argparse.Namespace) -> FrozenCLIPTrainer:
    """Load the run that the flags of `add_run_flags` name, quietly.

    Raises:
        UserError: see `load_quietly`; or --opts are no pairs, or the file of names cannot be read.
        UserError: the backbone's weights cannot be had.
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
    """Load a run as the flags of `add_setup_flags` say; what its trainer prints is not shown.

    Its dataset is read only where nothing names its classes: a zero-shot run has learned nothing,
    and other programs save no names.

    Raises:
        UserError: see `load_run`.
        UserError: the backbone's weights cannot be had.
    """
    setup = Setup(arguments.trainer, arguments.config_file, arguments.dataset_config_file)
    run_config(run_dir, opts, setup)  # a mistake there has nothing to do with classes
    needs_data = classnames is None and known_classnames(run_dir, epoch) is None
    try:
        with Path(os.devnull).open("w") as sink, contextlib.redirect_stdout(sink):
            return load_run(
                run_dir, opts, epoch, needs_data, classnames, setup, arguments.ignore_mismatch
            )
    except UserError as error:
        if not needs_data:
            raise
        raise UserError(
            f"{error} (this run keeps no class names of its own, so that its dataset is opened for "
            "them; --classes does without)"
        ) from error


def read_names(path: Path) -> list[str]:
    """Class names, one a line; blank lines do not count.

    Raises:
        UserError: the file cannot be read or holds no names.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise UserError(f"The class names in {path} cannot be read: {reason}") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f"{path} holds no class names; it takes one a line")
    return names


def run_folders(paths: Iterable[Path]) -> list[Path]:
    """The runs that are named, and those below the folders that are named; each once.

    A named folder that is no run and has none with learned prompts below it is given as it is, for
    whoever loads it to say what is wrong.
    """
    found: dict[Path, None] = {}
    for path in paths:
        below = [] if (path / CONFIG).is_file() else sorted(path.rglob(RESULTS))
        runs = [file.parent for file in below if (file.parent / LEARNER).is_dir()]
        found.update(dict.fromkeys(runs or [path]))
    return list(found)


def for_each_run(paths: Iterable[Path], do: Callable[[Path], T]) -> tuple[dict[Path, T], int]:
    """Do something with every run of `run_folders`; one that is refused is named on stderr.

    Returns:
        What came of each run, and how many were refused.
    """
    found, refused = {}, 0
    for run_dir in run_folders(paths):
        try:
            found[run_dir] = do(run_dir)
        except UserError as error:
            refused += 1
            print(printable(f"error: {run_dir}: {error}"), file=sys.stderr)
    return found, refused
