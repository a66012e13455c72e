"""Build the whole report: read and check the runs, make the tables, write the files."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path

from safeio.checksums import file_digest, read_verified_json, write_json_with_checksum
from safeio.errors import UserError
from safeio.files import prepare_output_dir, write_text

from .accuracy import AccuracyTables, make_tables
from .checks import notes_on, refuse_mixed
from .comparison import choose_baseline, compare, headline, one_seed
from .comparison_tables import comparison_table, group_table
from .figures import drawable
from .measures import measures_table
from .overview import ONE_SEED, cards, describe_runs
from .page import Page, draw_files, render
from .paper_comparison import (
    find_matches,
    paper_table,
    printed_tables,
    wanted_tables,
    why_no_matches,
)
from .provenance import (
    common_settings,
    example_commands,
    runs_table,
    settings_table,
    versions_table,
)
from .reading import RunIndex, read_runs
from .results import COLUMNS, Runs, counted, in_row_order, members_of
from .settings import Rows, name_rows
from .sweep_status import SweepStatus
from .table import FORMATS, Table

FILES = ".report.json"  # the SHA-256 of every file that a report wrote into its folder
NO_PAIRS = "No comparison: no other row shares data and seeds with the baseline."
NO_BASELINE = (
    "No comparison: CoOp does not have exactly one row; choose another with --baseline NAME."
)


@dataclass(frozen=True)
class Options:
    """Options of a report; the others are flags of `nemesis report` with the same names.

    Attributes:
        folders: folders that contain the runs.
        output: folder of the report; None for `report` in the common parent of the folders.
        seeds: minimum number of seeds of a complete cell.
        sweep: the sweep to report; None for all runs in the folders.
    """

    folders: Sequence[Path]
    output: Path | None = None
    title: str = "Report of the runs"
    baseline: str | None = None
    test: str = "wilcoxon"
    paper: Sequence[str] = ()
    by: Sequence[str] = ()
    seeds: int = 0
    allow_mixed: bool = False
    sweep: SweepStatus | None = None
    over_shots: bool = False


@dataclass(frozen=True)
class Report:
    """A finished report: its folder, its page, and unusable results.json files with the reason."""

    output: Path
    page: Page
    damaged: Mapping[Path, str]


def build(options: Options) -> Report:
    """Make the report and write its files.

    Raises:
        UserError: no run is finished, a row mixes incomparable runs, two runs have the same cell
            and seed, or the baseline or a table is unknown.
    """
    printed = printed_tables(wanted_tables(options.paper))
    index, rows, missing = _read(options)
    order = options.sweep.rows if options.sweep else ()
    runs, stray = _split(in_row_order(rows.runs, order))
    if not options.allow_mixed:
        for protocol in COLUMNS:
            refuse_mixed(members_of(protocol, runs))
    every = in_row_order([*runs, *missing], order)
    accuracy = make_tables(every, options.seeds, options.over_shots)
    notes = _notes(index, rows, stray, accuracy)
    common = commonpath([folder.absolute() for folder in options.folders or [Path()]])
    output = prepare_output_dir(options.output or Path(common) / "report")
    page = _page(options, runs, accuracy, notes, printed, output)
    _replace_files(output, _write(output, page))
    return Report(output, page, index.damaged)


def _page(
    options: Options,
    runs: Runs,
    accuracy: AccuracyTables,
    notes: Sequence[str],
    printed: Sequence[Table],
    output: Path,
) -> Page:
    baseline = choose_baseline(runs, options.baseline)
    compared = compare(runs, baseline, options.test) if baseline else []
    matches = find_matches(runs, accuracy.scores)
    no_match = "" if matches else why_no_matches(runs)
    measures = measures_table(runs)
    no_comparison = "" if compared else NO_PAIRS if baseline else NO_BASELINE
    single = ONE_SEED if one_seed(runs) else ""
    texts = [single, *notes, *notes_on(runs), no_comparison, no_match]
    return Page(
        title=options.title,
        runs=describe_runs(runs, options.sweep),
        cards=cards(runs, accuracy.scores, headline(compared), matches, no_match),
        notes=[text for text in texts if text],
        comparisons=compared,
        results=[
            *map(comparison_table, compared),
            *accuracy.tables,
            *([measures] if measures else []),
            *([paper_table(runs, matches)] if matches else []),
            *printed,
        ],
        groups=list(map(group_table, compared)),
        origin=[settings_table(runs), runs_table(runs, output), versions_table(runs)],
        points=drawable(accuracy.over_shots),
        labels=list(dict.fromkeys(label for label, _ in runs)),
        commands=example_commands(runs),
        common=common_settings(runs),
        folders=options.sweep.name if options.sweep else ", ".join(map(str, options.folders)),
    )


def _read(options: Options) -> tuple[RunIndex, Rows, Runs]:
    """Read the finished runs, name their rows, and list the sweep's missing runs."""
    sweep = options.sweep
    if sweep is None:
        index = read_runs(options.folders)
        return index, name_rows(index.runs, options.by), []
    if not sweep.done:
        raise UserError(
            f"{sweep.progress} of {sweep.name}; do them first: python -m nemesis sweep {sweep.name}"
        )
    index = read_runs(list(sweep.done))
    named = [(sweep.done[run["folder"]], run) for run in index.runs]
    return index, Rows(named, {}), sweep.missing


def _split(runs: Runs) -> tuple[Runs, list[Path]]:
    """Split into the runs that belong to a protocol and the folders of the others."""
    used = [(label, run) for label, run in runs if any(of(run) for of in COLUMNS.values())]
    used_ids = {id(run) for _, run in used}
    return used, [run["folder"] for _, run in runs if id(run) not in used_ids]


def _notes(
    index: RunIndex, rows: Rows, stray: Sequence[Path], accuracy: AccuracyTables
) -> list[str]:
    notes = [f"{path} is left out: {why}." for path, why in index.damaged.items()]
    for folders, why in (
        (index.untested, "finished, but were not tested"),
        (stray, "belong to no protocol's table"),
    ):
        if folders:
            names = ", ".join([*map(str, folders[:3]), *(["..."] if len(folders) > 3 else [])])
            notes.append(f"Runs that {why} are left out: {len(folders)} ({names}).")
    for method, keys in rows.implied.items():
        if keys:
            names = ", ".join(key.removeprefix("TRAINER.") for key in keys)
            notes.append(f"Rows of {method} also differ in {names}; see Settings.")
    incomplete = sum(bool(score.missing) for score in accuracy.scores.values())
    if incomplete:
        are = counted(incomplete, "number is", "numbers are")
        notes.append(f"{are} incomplete; each states what is missing.")
    return notes


def _write(output: Path, page: Page) -> list[Path]:
    """Write every file of the report and return their paths."""
    tables = [*page.results, *page.groups, *page.origin]
    for table in tables:
        table.write(output)
    figures = draw_files(page, output)
    head = [f"# {page.title}\n", f"{' · '.join(page.runs)}\n"]
    facts = "".join(f"- {card}\n" for card in page.cards)
    notes = "".join(f"- {note}\n" for note in page.notes)
    drawings = [f"![{alt}]({file})\n" for file, alt in figures.items()]
    parts = [*head, facts, notes, *drawings, *(table.markdown() for table in page.results)]
    write_text("\n".join(part for part in parts if part), output / "report.md")
    write_text(render(page), output / "report.html")
    names = [f"{table.name}.{suffix}" for table in tables for suffix in FORMATS]
    names += [
        str(Path(file).with_suffix(suffix)) for file in figures for suffix in (".png", ".pdf")
    ]
    return [output / name for name in (*names, "report.md", "report.html")]


def _replace_files(output: Path, written: Sequence[Path]) -> None:
    """Remove what an earlier report wrote here and nobody changed since; record the new files."""
    record, files = output / FILES, {path.name: file_digest(path) for path in written}
    with suppress(OSError, UserError, AttributeError):  # no earlier report, or a damaged record
        for name, digest in read_verified_json(record).items():
            path = output / name
            stale = name not in files and path.parent == output and path.is_file()
            if stale and file_digest(path) == digest:
                path.unlink()
    write_json_with_checksum(files, record)
