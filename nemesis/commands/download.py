r"""Download public datasets to the folders that their loaders read.

    python -m nemesis download caltech101 OxfordPets --root data
    python -m nemesis download all --root data
    python -m nemesis download --list --root data

NAME is one that python -m nemesis datasets lists, or a DATASET.NAME. Interrupted downloads resume.
Existing files are not changed, and archives that you place in a dataset's folder are unpacked. The
command ends with a list of the files that could not be downloaded and where to place them.

Exit codes: 0 complete, 1 a file could not be downloaded, 2 an error in the command.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from tabulate import tabulate

from dassl.data.datasets import DATASET_REGISTRY, Source
from dassl.utils import Parser, check_availability, exit_code
from datasets.download import Address, Fetcher, Missing
from datasets.sources import SOURCES
from safeio.errors import UserError
from trainers.config_names import dataset_stems


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(__doc__, "download")
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="datasets, or all")
    add("--root", default="data", help="data root (default: data)")
    add("--list", action="store_true", help="list each file, whether it is present, and its source")
    add("--keep-archives", action="store_true", help="do not delete archives after unpacking")
    return parser


def selected(names: Sequence[str]) -> list[str]:
    """Return the DATASET.NAMEs that a command line selects, without duplicates.

    Raises:
        UserError: a name is unknown; the message suggests the nearest.
    """
    public = [name for name in SOURCES if name in DATASET_REGISTRY]
    accepted = {stem: [name] for name, stem in dataset_stems().items()}
    accepted |= {name: [name] for name in DATASET_REGISTRY.registered_names()}
    accepted["all"] = public
    for name in names:
        check_availability(name, list(accepted))
    return list(dict.fromkeys(dataset for name in names for dataset in accepted[name]))


def folder_of(name: str, root: str) -> Path:
    """Return a dataset's folder."""
    return Path(root).expanduser().absolute() / DATASET_REGISTRY.get(name).dataset_dir


def show(name: str, folder: Path) -> None:
    """Print a dataset's files, which of them are present, and where to get the others."""
    print(f"{name}: {folder}")
    # Adjacent parts of one archive share the lines on where to get it.
    for lines, group in groupby(SOURCES.get(name, ()), lambda source: origins(source, folder)):
        wanted = False
        for source in group:
            print(f"  {state(source, folder):<10} {source.path:<32} {note(source)}".rstrip())
            wanted = wanted or source.is_wanted(folder)
        for line in lines if wanted else ():
            print(f"{'':13}{line}")


def state(source: Source, folder: Path) -> str:
    """Return whether a file or folder is present, missing or not needed."""
    if source.is_there(folder):
        return "present"
    return "missing" if source.is_wanted(folder) else "not needed"


def note(source: Source) -> str:
    """Return why a source can be absent; empty if it is required."""
    if source.unless:
        return f"only needed without {source.unless}"
    return "optional" if source.optional else ""


def origins(source: Source, folder: Path) -> list[str]:
    """Return lines on where to get a source."""
    pages = [f"from {Address.of(url, source).page}" for url in source.urls]
    return pages or [Missing(source, folder).advice()]


def report(missing: dict[str, list[Missing]]) -> None:
    """Print a table of the missing files, then the reason and advice for each."""
    rows = [
        (name, lost.source.path, note(lost.source))
        for name, items in missing.items()
        for lost in items
    ]
    print(f"\nNot downloaded:\n{tabulate(rows, headers=('dataset', 'missing', ''))}")
    # Files of one archive share the reasons and the advice.
    by_advice: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
    for items in missing.values():
        for lost in items:
            by_advice.setdefault((lost.advice(), lost.tried), []).append(str(lost.place))
    for (advice, tried), places in by_advice.items():
        print("\n" + "\n".join(places))
        for address, reason in tried:
            print(f"  tried {address}: {reason}")
        print(f"  {advice}")


def run(arguments: argparse.Namespace) -> int:
    """Download or list.

    Returns:
        1 if a file could not be downloaded, else 0.

    Raises:
        UserError: no dataset is named, a name is unknown, or a folder is not writable.
    """
    if not (arguments.names or arguments.list):
        raise UserError("No dataset is named; name some, or all, or list them with --list")
    names = selected(arguments.names or ["all"])
    missing: dict[str, list[Missing]] = {}
    for name in names:
        folder = folder_of(name, arguments.root)
        if arguments.list:
            show(name, folder)
            continue
        lost = Fetcher(folder, arguments.keep_archives).fetch(SOURCES.get(name, ()))
        if lost:
            missing[name] = lost
        print(f"{name}: {'incomplete' if lost else 'complete'}")
    if missing:
        report(missing)
    return int(bool(missing))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    try:
        return exit_code(run, build_parser(), argv)
    except KeyboardInterrupt:
        print("\nStopped; run the same command to resume", file=sys.stderr)
        return 1
