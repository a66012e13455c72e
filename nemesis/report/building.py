"""Build the whole report: read and check the runs, make the tables, write the files."""

from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path

from nemesis.report.figures import Points, plot_accuracy_over_shots, write_points
from nemesis.report.protocols import COLUMNS
from nemesis.report.scores import AVERAGE, Runs
from safeio.errors import UserError
from safeio.files import prepare_output_dir, write_atomic

from .accuracy import Tables, make_tables
from .checks import members_of, notes_on, refuse_mixed, refuse_repeated
from .comparison import choose_baseline, compare
from .listing import Listing, to_csv, to_latex, to_markdown
from .page import Page, render
from .paper_comparison import (
    find_matches,
    paper_listing,
    printed_tables,
    wanted_tables,
    why_no_matches,
)
from .provenance import (
    common_settings,
    example_commands,
    runs_listing,
    settings_listing,
    summary,
    versions_listing,
)
from .reading import RunIndex, read_runs
from .settings import Rows, name_rows
from .sweep_status import SweepStatus, in_order

FIGURE = "accuracy_over_shots"


@dataclass(frozen=True)
class Options:
    """Options of a report.

    Attributes:
        folders: folders that contain the runs.
        output: folder of the report; None for `report` in the common parent of the folders.
        title: heading of the page.
        baseline: name of a row or method; None for CoOp, if present.
        test: "wilcoxon" or "t".
        paper: the paper's tables to show separately.
        by: traits that name rows.
        seeds: minimum number of seeds of a complete cell.
        allow_mixed: whether a row may hold runs that differ in a trait.
        sweep: the sweep to report; None for all runs in the folders.
        over_shots: whether to append the mean over shots to the tables.
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
    """A finished report.

    Attributes:
        results: the tables of results.
        notes: caveats for the reader.
        damaged: unusable results.json files, each with the reason.
        output: the folder.
    """

    results: list[Listing]
    notes: list[str]
    damaged: dict[Path, str]
    output: Path


def build(options: Options) -> Report:
    """Make the report and write its files.

    Raises:
        UserError: no run is finished, a row mixes incomparable runs, two runs have the same cell
            and seed, or the baseline or a table is unknown.
    """
    printed = printed_tables(wanted_tables(options.paper))
    index, rows, missing = _read(options)
    runs, stray = _split(rows.runs)
    _check(runs, options.allow_mixed)
    tables = make_tables([*runs, *missing], options.seeds, options.over_shots)
    baseline = choose_baseline(runs, options.baseline)
    compared = compare(runs, baseline, options.test) if baseline else []
    paper = paper_listing(runs, find_matches(runs, tables))
    results = [*tables.listings, *compared, *([paper] if paper else [])]
    notes = [*_notes(index, rows, stray, tables), *notes_on(runs)]
    if not compared:
        notes.append(_why_no_comparison(baseline))
    if not paper:
        notes.append(why_no_matches(runs))
    output = _output(options)
    origin = [settings_listing(runs), runs_listing(runs, output), versions_listing(runs)]
    if options.sweep:
        notes.insert(0, options.sweep.state)
        results = [in_order(listing, options.sweep.rows) for listing in results]
        origin = [in_order(listing, options.sweep.rows) for listing in origin]
    results += printed
    page = Page(
        options.title,
        summary(runs),
        notes,
        results,
        origin,
        _drawn(tables),
        example_commands(runs),
        common_settings(runs),
        options.sweep.name if options.sweep else ", ".join(map(str, options.folders)),
    )
    _write(output, page)
    return Report(results, notes, index.damaged, output)


def _read(options: Options) -> tuple[RunIndex, Rows, Runs]:
    """Read the finished runs, name their rows, and list the sweep's missing runs."""
    sweep = options.sweep
    if sweep is None:
        index = read_runs(options.folders)
        return index, name_rows(index.runs, options.by), []
    if not sweep.done:
        raise UserError(f"{sweep.state} Do them first: python -m nemesis sweep {sweep.name}")
    index = read_runs(list(sweep.done))
    named = [(sweep.done[run["folder"]], run) for run in index.runs]
    return index, Rows(named, {}, {}), sweep.missing


def _split(runs: Runs) -> tuple[Runs, list[Path]]:
    """Split into the runs that belong to a protocol and the folders of the others."""
    used = [(label, run) for label, run in runs if any(of(run) for of in COLUMNS.values())]
    used_ids = {id(run) for _, run in used}
    return used, [run["folder"] for _, run in runs if id(run) not in used_ids]


def _check(runs: Runs, allow_mixed: bool) -> None:
    for protocol in COLUMNS:
        members = members_of(protocol, runs)
        if not allow_mixed:
            refuse_mixed(members)
        refuse_repeated(protocol, members)


def _output(options: Options) -> Path:
    if options.output:
        return prepare_output_dir(options.output)
    return prepare_output_dir(
        Path(commonpath([folder.absolute() for folder in options.folders])) / "report"
    )


def _notes(index: RunIndex, rows: Rows, stray: Sequence[Path], tables: Tables) -> list[str]:
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
    scores = (*tables.scores.values(), *tables.other.values())
    incomplete = sum(bool(score.missing) for score in scores)
    if incomplete:
        are = "s are" if incomplete > 1 else " is"
        notes.append(f"{incomplete} number{are} incomplete; each states what is missing.")
    return notes


def _drawn(tables: Tables) -> Points:
    """Select the figure's points; averages that miss datasets would mislead."""
    return {
        key: score
        for key, score in tables.scores.items()
        if score.accuracies and (key[1] != AVERAGE or not score.missing.endswith("datasets"))
    }


def _why_no_comparison(baseline: str | None) -> str:
    if baseline:
        return f"No comparison: no other row shares data and seeds with {baseline}."
    return "No comparison: CoOp does not have exactly one row; choose another with --baseline NAME."


def _write(output: Path, page: Page) -> None:
    def write(name: str, text: str) -> None:
        write_atomic(output / name, lambda path: path.write_text(text, encoding="utf-8"))

    shots = sorted({shots for _, _, shots in page.points} - {0})
    for listing in (*page.results, *page.origin):
        write(f"{listing.name}.md", to_markdown(listing))
        write(f"{listing.name}.csv", to_csv(listing))
        write(f"{listing.name}.tex", to_latex(listing))
    if shots:
        for suffix in ("png", "pdf"):
            plot_accuracy_over_shots(page.points, shots, output / f"{FIGURE}.{suffix}")
        write_points(page.points, output / f"{FIGURE}.csv")
    drawing = f"![Accuracy over shots]({FIGURE}.png)\n" if shots else ""
    notes = "".join(f"- {note}\n" for note in page.notes)
    parts = [f"# {page.title}\n", notes, *map(to_markdown, page.results), drawing]
    write("report.md", "\n".join(part for part in parts if part))
    write("report.html", render(page))
