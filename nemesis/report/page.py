"""Render the report as one self-contained HTML page that loads no other file or URL.

Jinja2 escapes all values except our own style, script and drawings, which are `Markup`. A content
security policy allows only the page's own script.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nemesis.report.figures import COLOURS, DASHES, MARKERS, Points, lines_of, panel_svg, panels_of
from nemesis.report.scores import BASELINE

from .listing import Listing, groups_of

HERE = Path(__file__).parent
STROKES = {"-": "", "--": "6 3", ":": "1.5 2.5", "-.": "6 2 1.5 2"}
# Matplotlib's markers as paths around (14, 6).
SHAPES = {
    "o": "M10.8 6a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0z",
    "s": "M11 3h6v6h-6z",
    "^": "M14 2.6L17.4 9H10.6z",
    "D": "M14 2L18 6L14 10L10 6z",
    "v": "M14 9.4L10.6 3H17.4z",
    "P": "M13 2.5h2v2.5h2.5v2H15v2.5h-2V7h-2.5V5H13z",
    "X": "M11 3L17 9M17 3L11 9",
}


@dataclass(frozen=True)
class Page:
    """Content of the page.

    Attributes:
        title: heading.
        facts: summary figures as (name, value).
        notes: caveats for the reader.
        results: tables of results.
        origin: tables about the runs.
        points: points of the figure; empty for no figure.
        commands: commands that repeat runs.
        common: settings shared by all runs.
        folders: folders or sweep of the report.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str]
    results: Sequence[Listing]
    origin: Sequence[Listing]
    points: Points
    commands: Sequence[str]
    common: str
    folders: str


def render(page: Page) -> str:
    """Render the page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    shots = sorted({shots for _, _, shots in page.points} - {0})
    panels = [
        (name, Markup(panel_svg(page.points, name, shots)))  # Matplotlib escapes names
        for name in (panels_of(page.points) if shots else [])
    ]
    return environment.get_template("page.html").render(
        **{name: getattr(page, name) for name in page.__dataclass_fields__},
        groups_of=groups_of,
        panels=panels,
        legend=legend(page.points),
        style=Markup((HERE / "page.css").read_text(encoding="utf-8").rstrip()),
        script=Markup(script),
        script_hash=digest,
    )


def legend(points: Points) -> list[dict[str, str]]:
    """Return the label, colour, dashes and marker of each line."""
    learned = lines_of(points)
    zero_shot = sorted({method for method, _, _ in points if method.startswith(BASELINE)})
    entries = [
        {
            "label": label,
            "colour": COLOURS[index % len(COLOURS)].replace("#000000", "currentColor"),
            "dash": STROKES[DASHES[index // len(COLOURS) % len(DASHES)]],
            "marker": SHAPES[MARKERS[index % len(MARKERS)]],
        }
        for index, label in enumerate(learned)
    ]
    entries += [
        {"label": label, "colour": "#808080", "dash": STROKES[DASHES[1 + i % 3]], "marker": ""}
        for i, label in enumerate(zero_shot)
    ]
    return entries
