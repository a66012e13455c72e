r"""Download public datasets into the folders that their loaders read.

    python download.py caltech101 OxfordPets --root data
    python download.py all --root data
    python download.py --list --root data

A dataset is named like its config or like its DATASET.NAME. Interrupted downloads go on where they
stopped; what is there already is left as it is; an archive that you put into a dataset's folder by
hand is unpacked. What cannot be had is listed at the end, with where it has to be put.

Exit codes: 0 everything is there, 2 a mistake in the command, 1 something could not be had.
"""

from dassl.startup import importing

with importing(__name__):
    import argparse
    import sys
    from collections.abc import Sequence
    from itertools import groupby
    from pathlib import Path

    import yaml
    from tabulate import tabulate

    import datasets  # noqa: F401  (registers the datasets)
    from dassl.data.datasets import DATASET_REGISTRY, Source
    from dassl.utils import Parser, check_availability, exit_code
    from datasets.download import Address, Fetcher, Missing
    from datasets.sources import SOURCES
    from safeio.errors import UserError

CONFIGS = Path(__file__).parent / "configs" / "datasets"


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="datasets, or all")
    add("--root", default="data", help="folder of the datasets (default: data)")
    add("--list", action="store_true", help="show what is needed, there and missing, and end")
    add("--keep-archives", action="store_true", help="keep what was downloaded and unpacked")
    return parser


def config_names() -> dict[str, str]:
    """Config name -> DATASET.NAME, for all configs of datasets."""
    configs = sorted(CONFIGS.glob("*.yaml"))
    return {path.stem: yaml.safe_load(path.read_text())["DATASET"]["NAME"] for path in configs}


def chosen(names: Sequence[str]) -> list[str]:
    """The DATASET.NAMEs that a command line names, each once.

    Raises:
        UserError: an unknown name; says the nearest.
    """
    public = [name for name in SOURCES if name in DATASET_REGISTRY]
    configs = config_names()
    accepted = {name: [name] for name in DATASET_REGISTRY.registered_names()}
    accepted |= {config: [name] for config, name in configs.items()}
    accepted["all"] = public
    for name in names:
        check_availability(name, list(accepted))
    return list(dict.fromkeys(dataset for name in names for dataset in accepted[name]))


def folder_of(name: str, root: str) -> Path:
    """A dataset's folder."""
    return Path(root).expanduser().absolute() / DATASET_REGISTRY.get(name).dataset_dir


def show(name: str, folder: Path) -> None:
    """Print what a dataset needs, what of it is there and where the rest can be had."""
    print(f"{name}: {folder}")
    # Parts of one archive stand in a row, and where it can be had is said once.
    for lines, group in groupby(SOURCES.get(name, ()), lambda source: origins(source, folder)):
        wanted = False
        for source in group:
            print(f"  {state(source, folder):<10} {source.path:<32} {note(source)}".rstrip())
            wanted = wanted or source.is_wanted(folder)
        for line in lines if wanted else ():
            print(f"{'':13}{line}")


def state(source: Source, folder: Path) -> str:
    """One word about a file or folder."""
    if source.is_there(folder):
        return "there"
    return "missing" if source.is_wanted(folder) else "not needed"


def note(source: Source) -> str:
    """What it is to the dataset, if it can be absent."""
    if source.unless:
        return f"only needed without {source.unless}"
    return "the dataset can do without it" if source.optional else ""


def origins(source: Source, folder: Path) -> list[str]:
    """Where a source can be had, a line each."""
    pages = [f"from {Address.of(url, source).page}" for url in source.urls]
    return pages or [Missing(source, folder).advice()]


def report(missing: dict[str, list[Missing]]) -> None:
    """Print a table of what could not be had, and then why and what to do about each."""
    rows = [
        (name, lost.source.path, note(lost.source))
        for name, items in missing.items()
        for lost in items
    ]
    print(f"\nThis could not be had:\n{tabulate(rows, headers=('dataset', 'missing', ''))}")
    # Several files of one archive have the same reasons and the same advice.
    told: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
    for items in missing.values():
        for lost in items:
            told.setdefault((lost.advice(), lost.tried), []).append(str(lost.place))
    for (advice, tried), places in told.items():
        print("\n" + "\n".join(places))
        for address, reason in tried:
            print(f"  tried {address}: {reason}")
        print(f"  {advice}")


def run(arguments: argparse.Namespace) -> int:
    """Download or list.

    Returns:
        1 if something could not be had, else 0.

    Raises:
        UserError: an unknown dataset, none at all, or a folder that cannot be written to.
    """
    if not (arguments.names or arguments.list):
        raise UserError("No dataset is named; name some, or all, or see them with --list")
    names = chosen(arguments.names or ["all"])
    missing: dict[str, list[Missing]] = {}
    for name in names:
        folder = folder_of(name, arguments.root)
        if arguments.list:
            show(name, folder)
            continue
        lost = Fetcher(folder, arguments.keep_archives).fetch(SOURCES.get(name, ()))
        if lost:
            missing[name] = lost
        print(f"{name}: {'not everything is there' if lost else 'everything is there'}")
    if missing:
        report(missing)
    return int(bool(missing))


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    try:
        return exit_code(run, build_parser(), argv)
    except KeyboardInterrupt:
        print("\nStopped; the same command goes on from here", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
