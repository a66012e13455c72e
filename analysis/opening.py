"""A finished run as a classifier: the flags that commands share, and the trainer behind them."""

import argparse
import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dassl.engine import CONFIG
from dassl.utils import UserError
from trainers.feature_trainer import FeatureTrainer
from trainers.open_run import open_run
from trainers.prompt_file import PROMPT_FILE


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
    add("--root", help="folder of the datasets, where a run's class names come from its data")
    add(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="override any setting, such as DEVICE or MODEL.BACKBONE.NAME; stands last",
    )


def positive(text: str) -> int:
    """A flag's value that is a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def open_classifier(arguments: argparse.Namespace) -> FeatureTrainer:
    """Open the run that the flags of `add_run_flags` name, quietly.

    Its dataset is needed only where the run keeps no class names and none are given: a zero-shot
    run has learned nothing, and an unfinished one has not written its prompt yet.

    Raises:
        UserError: see `open_run`; or --opts are no pairs, or the file of names cannot be read.
        clip.errors.ClipError: the backbone's weights cannot be had.
    """
    run_dir, opts = arguments.run_dir, list(arguments.opts)
    if len(opts) % 2:
        raise UserError(f"--opts takes pairs KEY VALUE, but got {' '.join(opts)}")
    if arguments.root is not None:
        opts = ["DATASET.ROOT", arguments.root, *opts]
    classnames = arguments.classes
    if arguments.classes_file is not None:
        classnames = read_names(arguments.classes_file)
    is_run, keeps_names = ((run_dir / name).is_file() for name in (CONFIG, PROMPT_FILE))
    if classnames is None and is_run and not keeps_names:
        return _open_with_data(run_dir, opts, arguments.load_epoch)
    with _quiet():
        return open_run(run_dir, opts, arguments.load_epoch, False, classnames)


def _open_with_data(run_dir: Path, opts: Sequence[str], epoch: int | None) -> FeatureTrainer:
    try:
        with _quiet():
            return open_run(run_dir, opts, epoch)
    except UserError as error:
        raise UserError(
            f"{error} (this run keeps no class names of its own, so that its dataset is opened for "
            "them; --classes does without)"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Trainers tell much on the way, which has no place among a command's results."""
    with Path(os.devnull).open("w") as sink, contextlib.redirect_stdout(sink):
        yield


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
