"""The whole report: read, check, make the tables, write the files."""

from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path

from analysis.figures import Points, plot_accuracy_over_shots, write_points
from analysis.protocols import COLUMNS
from analysis.scores import AVERAGE, Runs
from safeio.errors import UserError
from safeio.files import prepare_output_dir, write_atomic

from .accuracy import Tables, make_tables
from .beside import find_matches, paper_listing, printed_tables, wanted_tables, why_none
from .checks import members_of, notes_on, refuse_mixed, refuse_repeated
from .comparison import choose_baseline, compare
from .listing import Listing, to_csv, to_latex, to_markdown
from .page import Page, render
from .planned import Planned, in_order
from .provenance import (
    common_settings,
    example_commands,
    runs_listing,
    settings_listing,
    summary,
    versions_listing,
)
from .reading import Found, read_runs
from .settings import Rows, name_rows

FIGURE = "accuracy_over_shots"


@dataclass(frozen=True)
class Options:
    """What a report is of, and how.

    Attributes:
        folders: of the runs.
        output: folder of the report; None for `report` in the folder of all the folders.
        title: heading of the page.
        baseline: name of a row or method; None for CoOp, if it is there.
        test: "wilcoxon" or "t".
        paper: the paper's tables to show apart.
        by: traits that name rows.
        seeds: how many a complete cell has, unless a cell has more.
        allow_mixed: whether a row may hold runs that differ in a trait.
        planned: what the report is of, instead of all that the folders hold.
        over_shots: whether tables end in the mean over the shots.
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
    planned: Planned | None = None
    over_shots: bool = False


@dataclass(frozen=True)
class Report:
    """What was made.

    Attributes:
        results: the tables of results.
        notes: what to know before reading.
        damaged: results.json files that could not be used, each with the reason.
        output: the folder.
    """

    results: list[Listing]
    notes: list[str]
    damaged: dict[Path, str]
    output: Path


def build(options: Options) -> Report:
    """Make the report and write its files.

    Raises:
        UserError: no finished run, runs that must not be mixed, two runs of one cell and seed, or
            an unknown baseline or table.
    """
    printed = printed_tables(wanted_tables(options.paper))
    found, rows, missing = _read(options)
    runs, stray = _split(rows.runs)
    _check(runs, options.allow_mixed)
    tables = make_tables([*runs, *missing], options.seeds, options.over_shots)
    baseline = choose_baseline(runs, options.baseline)
    compared = compare(runs, baseline, options.test) if baseline else []
    beside = paper_listing(runs, find_matches(runs, tables))
    results = [*tables.listings, *compared, *([beside] if beside else [])]
    notes = [*_notes(found, rows, stray, tables), *notes_on(runs)]
    if not compared:
        notes.append(_why_no_comparison(baseline))
    if not beside:
        notes.append(why_none(runs))
    output = _output(options)
    origin = [settings_listing(runs), runs_listing(runs, output), versions_listing(runs)]
    if options.planned:
        notes.insert(0, options.planned.state)
        results = [in_order(listing, options.planned.rows) for listing in results]
        origin = [in_order(listing, options.planned.rows) for listing in origin]
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
        options.planned.name if options.planned else ", ".join(map(str, options.folders)),
    )
    _write(output, page)
    return Report(results, notes, found.damaged, output)


def _read(options: Options) -> tuple[Found, Rows, Runs]:
    """What there is, with the names of its rows, and what is planned but missing."""
    planned = options.planned
    if planned is None:
        found = read_runs(options.folders)
        return found, name_rows(found.runs, options.by), []
    if not planned.done:
        raise UserError(f"{planned.state} Do them first: python sweep.py {planned.name}")
    found = read_runs(list(planned.done))
    named = [(planned.done[run["folder"]], run) for run in found.runs]
    return found, Rows(named, {}, {}), planned.missing


def _split(runs: Runs) -> tuple[Runs, list[Path]]:
    """The runs that belong to a protocol, and the folders of the others."""
    used = [(label, run) for label, run in runs if any(of(run) for of in COLUMNS.values())]
    kept = {id(run) for _, run in used}
    return used, [run["folder"] for _, run in runs if id(run) not in kept]


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


def _notes(found: Found, rows: Rows, stray: Sequence[Path], tables: Tables) -> list[str]:
    notes = [f"{path} is left out: {why}." for path, why in found.damaged.items()]
    for folders, why in (
        (found.untested, "finished, but were not tested"),
        (stray, "belong to no protocol's table"),
    ):
        if folders:
            names = ", ".join(map(str, folders[:3])) + ", ..." * (len(folders) > 3)
            notes.append(f"Runs that {why} are left out: {len(folders)} ({names}).")
    for method, keys in rows.implied.items():
        if keys:
            names = ", ".join(key.removeprefix("TRAINER.") for key in keys)
            notes.append(f"Rows of {method} differ in {names} as well; see Settings.")
    lacking = sum(bool(score.lacks) for score in (*tables.scores.values(), *tables.other.values()))
    if lacking:
        are = "s are" if lacking > 1 else " is"
        notes.append(f"{lacking} number{are} incomplete; each says what it lacks.")
    return notes


def _drawn(tables: Tables) -> Points:
    """What the figure shows: averages over fewer datasets than others would mislead."""
    return {
        key: score
        for key, score in tables.scores.items()
        if score.accuracies and (key[1] != AVERAGE or not score.lacks.endswith("datasets"))
    }


def _why_no_comparison(baseline: str | None) -> str:
    if baseline:
        return f"Nothing is compared: no other row shares data and seeds with {baseline}."
    return (
        "Nothing is compared: there is no one row of CoOp; --baseline NAME compares with another."
    )


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
