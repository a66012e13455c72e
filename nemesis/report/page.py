"""Render the report as one self-contained HTML page that loads no other file or URL.

Jinja2 escapes all values except our own style, script and drawings, which are `Markup`. A content
security policy allows only the page's own script.
"""

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from . import figures
from .comparison import Comparison, headline
from .figures import INK, Lines
from .overview import Card
from .table import Table, html_template

NARROW = 6  # columns of a heat map that fit a telephone
HERE = Path(__file__).parent
ACCURACY, DIFFERENCE, MAP = "accuracy_over_shots", "difference_over_shots", "difference_by_dataset"


@dataclass(frozen=True)
class Page:
    """Content of the page.

    Attributes:
        title: heading.
        runs: what was run, in a few words each.
        cards: the first screen's numbers.
        notes: caveats for the reader.
        comparisons: of the rows with the baseline.
        results: tables of results; those of the comparisons come first.
        groups: for each comparison, the differences by dataset.
        origin: tables about the runs.
        points: points of the accuracy figure; empty for no figure.
        labels: the rows, in order.
        commands: commands that repeat runs.
        common: settings shared by all runs.
        folders: folders or sweep of the report.
    """

    title: str
    runs: Sequence[str]
    cards: Sequence[Card]
    notes: Sequence[str]
    comparisons: Sequence[Comparison]
    results: Sequence[Table]
    groups: Sequence[Table]
    origin: Sequence[Table]
    points: figures.Points
    labels: Sequence[str]
    commands: Sequence[str]
    common: str
    folders: str


@dataclass(frozen=True)
class Drawing:
    """A figure of the page.

    Attributes:
        caption: above it.
        description: for screen readers.
        svg: the figure.
        wide: whether it scrolls on a narrow screen.
    """

    caption: str
    description: str
    svg: Markup
    wide: bool = False


def render(page: Page) -> str:
    """Render the page as HTML."""
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return html_template("page.html").render(
        **{name: getattr(page, name) for name in page.__dataclass_fields__},
        drawings=list(_first_screen(page)),
        panels=list(_panels(page)),
        html=lambda table: Markup(table.html()),
        style=Markup((HERE / "page.css").read_text(encoding="utf-8").rstrip()),
        script=Markup(script),
        script_hash=digest,
    )


def _first_screen(page: Page) -> Iterator[Drawing]:
    """Draw the differences to the baseline: over shots, and by dataset."""
    found = headline(page.comparisons)
    for name, caption, draw in _difference_figures(page):
        svg = Markup(figures.to_svg(draw(Lines(page.labels, INK)), name))
        wide = name == MAP and found is not None and len(found.groups) > NARROW
        yield Drawing(caption, f"{caption}; the numbers are in the tables", svg, wide)


def _difference_figures(page: Page) -> Iterator[tuple[str, str, Callable[[Lines], Figure]]]:
    """Yield the file name, caption and function of each figure of differences."""
    found = headline(page.comparisons)
    if found is None:
        return
    if found.protocol == "few_shot" and len(found.columns) > 1 and found.complete:
        several = len(found.groups) > 1
        over = f"Average of {len(found.groups)} datasets" if several else found.groups[0]
        caption = f"{over}: difference to {found.baseline} over shots"
        if found.complete != found.labels:
            caption += " (rows with all datasets)"
        yield DIFFERENCE, caption, lambda lines: figures.difference_lines(found, lines)
    if len(found.groups) > 1:
        what = "mean over the shots, by dataset" if found.protocol == "few_shot" else "by test set"
        caption = f"Difference to {found.baseline}: {what}"
        yield MAP, caption, lambda lines: figures.difference_map(found, lines)


def _panels(page: Page) -> Iterator[Drawing]:
    """Draw accuracy over shots: the legend, then a panel per dataset."""
    if not figures.shots_of(page.points):
        return
    lines = Lines(page.labels, INK)
    legend = figures.legend(page.points, lines)
    yield Drawing("", "Legend", Markup(figures.to_svg(legend, "legend")))
    for dataset in figures.datasets_of(page.points):
        figure = figures.accuracy_panel(page.points, dataset, lines)
        description = f"Accuracy over shots on {dataset}; the numbers are in the table"
        yield Drawing(dataset, description, Markup(figures.to_svg(figure, f"panel {dataset}")))


def draw_files(page: Page, output: Path) -> dict[str, str]:
    """Write every figure as PNG and PDF; return the PNGs' names with their descriptions."""
    lines = Lines(page.labels)
    drawn = {name: (text, draw(lines)) for name, text, draw in _difference_figures(page)}
    if figures.shots_of(page.points):
        figure = figures.accuracy_panels(page.points, lines)
        drawn[ACCURACY] = ("Accuracy over shots", figure)
    for name, (_, figure) in drawn.items():
        for suffix in ("png", "pdf"):
            figures.save(figure, output / f"{name}.{suffix}")
        figures.plt.close(figure)
    return {f"{name}.png": text for name, (text, _) in drawn.items()}
