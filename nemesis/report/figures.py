"""Figures of finished runs, readable in print and for colour-blind readers."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from safeio.files import write_atomic

from .comparison import Comparison
from .results import AVERAGE, BASELINE, paper_order
from .scores import Score
from .table import number

# Okabe and Ito's palette; markers distinguish the colours, dashes distinguish its repetitions.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
GAIN, LOSS = (0.0, 0.45, 0.70), (0.84, 0.37, 0.0)
PANELS = 4  # per row of the file
Points = Mapping[tuple[str, str, int], Score]  # by row, dataset and shots
# Placeholder for the colour of the page's text in an embedded SVG.
INK = "#010203"
SVG = "http://www.w3.org/2000/svg"


@dataclass(frozen=True)
class Lines:
    """The lines of all figures of a report, so that a row looks the same in each.

    Attributes:
        labels: the rows, in order; rows of zero-shot CLIP are grey lines without markers.
        ink: colour of text and axes.
    """

    labels: Sequence[str]
    ink: str = "black"

    def style(self, label: str) -> dict[str, Any]:
        """Return Matplotlib's properties of a row's line."""
        zero_shot = [name for name in self.labels if name.startswith(BASELINE)]
        if label in zero_shot:
            dash = DASHES[1 + zero_shot.index(label) % (len(DASHES) - 1)]
            return {"color": "0.5", "linestyle": dash, "label": label}
        index = [name for name in self.labels if name not in zero_shot].index(label)
        colour = COLOURS[index % len(COLOURS)]
        return {
            "color": self.ink if colour == "#000000" else colour,
            "marker": MARKERS[index % len(MARKERS)],
            "linestyle": DASHES[index // len(COLOURS) % len(DASHES)],
            "label": label,
        }

    def rc(self) -> Any:
        """Return a context with the figures' common settings; names are printed verbatim."""
        parts = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
        style: Any = dict.fromkeys(parts, self.ink)
        return matplotlib.rc_context({**style, "text.parse_math": False, "svg.fonttype": "none"})


def accuracy_panels(cells: Points, lines: Lines) -> Figure:
    """Draw accuracy over shots, one panel per dataset, with one legend."""
    datasets = datasets_of(cells)
    columns = min(len(datasets), PANELS)
    rows = math.ceil(len(datasets) / columns)
    size = (3.8 * columns + 1.5, 3.4 * rows)
    with lines.rc():
        figure, axes = plt.subplots(
            rows, columns, figsize=size, squeeze=False, layout="constrained"
        )
        for axis, dataset in zip(axes.flat, datasets, strict=False):
            _draw_panel(axis, cells, dataset, lines)
            axis.set_title(dataset)
        for axis in axes.flat[len(datasets) :]:
            axis.set_axis_off()
        figure.legend(handles=_handles(cells, lines), loc="outside right center", frameon=False)
    return figure


def accuracy_panel(cells: Points, dataset: str, lines: Lines) -> Figure:
    """Draw accuracy over shots on one dataset, without title and legend."""
    with lines.rc():
        figure, axis = plt.subplots(figsize=(3.7, 2.7), layout="constrained")
        _draw_panel(axis, cells, dataset, lines)
    return figure


def legend(cells: Points, lines: Lines) -> Figure:
    """Draw the legend of all panels."""
    handles = _handles(cells, lines)
    with lines.rc():
        figure = plt.figure(figsize=(3.7, max(1.0, 0.24 * len(handles) + 0.2)))
        figure.legend(handles=handles, loc="upper left", frameon=False, fontsize=9)
    return figure


def difference_lines(found: Comparison, lines: Lines) -> Figure:
    """Draw the mean difference to the baseline over the columns, one line per complete row."""
    columns = [column for column in found.columns if column != "all"]
    with lines.rc():
        figure, axis = plt.subplots(figsize=(5.2, 3.9), layout="constrained")
        for label in found.complete:
            means = [found.differences.get((label, column)) for column in columns]
            y = [math.nan if one is None or one.mean is None else one.mean for one in means]
            axis.plot(range(len(columns)), y, **lines.style(label))
        axis.axhline(0, color="0.5", linewidth=1)
        axis.set_xticks(range(len(columns)), [column.split()[0] for column in columns])
        _finish(axis, f"difference to {found.baseline} (points)")
        figure.legend(loc="outside lower center", frameon=False, fontsize=8.5, ncols=2)
    return figure


def difference_map(found: Comparison, lines: Lines) -> Figure:
    """Draw the mean difference to the baseline, rows with a difference by datasets."""
    means = {key: one.mean for key, one in found.by_group.items() if one.mean is not None}
    labels = [label for label in found.labels if any(key[0] == label for key in means)]
    width, height = len(found.groups), len(labels)
    words = max(map(len, labels), default=0), max(map(len, found.groups))
    size = (max(4.2, 0.4 * width + 0.08 * words[0] + 0.3), 0.36 * height + 0.06 * words[1] + 0.4)
    largest = max(map(abs, means.values()), default=0) or 1
    with lines.rc():
        figure, axis = plt.subplots(figsize=size, layout="constrained")
        for (label, group), mean in means.items():
            x, y = found.groups.index(group), labels.index(label)
            depth = 0.85 * abs(mean) / largest
            colour = (*(GAIN if mean > 0 else LOSS), depth)
            axis.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, linewidth=0))
            ink = "white" if depth > 0.55 else lines.ink
            axis.text(
                x + 0.5,
                y + 0.5,
                number(mean, 1, sign=True).text,
                ha="center",
                va="center",
                color=ink,
                fontsize=8,
            )
        axis.set(xlim=(0, width), ylim=(height, 0))
        at = [x + 0.5 for x in range(width)]
        axis.set_xticks(at, found.groups, rotation=40, ha="right", rotation_mode="anchor")
        axis.set_yticks([y + 0.5 for y in range(height)], labels)
        axis.tick_params(length=0, labelsize=8)
        axis.spines[:].set_visible(False)
    return figure


def _handles(cells: Points, lines: Lines) -> list[Line2D]:
    drawn = {label for label, _, _ in cells}
    return [Line2D([], [], **lines.style(label)) for label in lines.labels if label in drawn]


def datasets_of(cells: Points) -> list[str]:
    """Return the average, then the datasets in the papers' order."""
    return sorted({dataset for _, dataset, _ in cells}, key=paper_order)


def shots_of(cells: Points) -> list[int]:
    """Return the numbers of shots, without zero-shot's 0."""
    return sorted({shots for _, _, shots in cells} - {0})


def drawable(scores: Points) -> Points:
    """Select the cells to draw; averages that miss datasets would mislead."""
    return {
        key: score
        for key, score in scores.items()
        if score.accuracies and (key[1] != AVERAGE or not score.missing.endswith("datasets"))
    }


def _draw_panel(axis: Any, cells: Points, dataset: str, lines: Lines) -> None:
    """Draw means with bands of one standard deviation; zero-shot CLIP is a horizontal line."""
    shots = shots_of(cells)
    for label in lines.labels:
        style = lines.style(label)
        zero = cells.get((label, dataset, 0))
        if zero:
            axis.axhline(zero.mean, color=style["color"], linestyle=style["linestyle"])
        series = {n: cells[label, dataset, n] for n in shots if (label, dataset, n) in cells}
        if not series:
            continue
        x = [shots.index(n) for n in series]
        axis.plot(x, [cell.mean for cell in series.values()], **style)
        low, high = ([c.mean + sign * c.std for c in series.values()] for sign in (-1, 1))
        axis.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)
    axis.set_xticks(range(len(shots)), [str(n) for n in shots])
    axis.margins(x=0.08)
    _finish(axis, "test accuracy (%)")


def _finish(axis: Any, label: str) -> None:
    axis.set(xlabel="labelled images per class", ylabel=label)
    axis.grid(axis="y", color="0.5", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG or PDF, by the path's suffix; the same runs give the same file."""
    suffix = path.suffix.removeprefix(".")
    metadata = {"CreationDate": None} if suffix == "pdf" else None
    write_atomic(path, lambda to: figure.savefig(to, dpi=160, format=suffix, metadata=metadata))


def to_svg(figure: Figure, name: str) -> str:
    """Return the figure as an SVG element for the page, in its font and colours.

    Args:
        figure: drawn with `INK`; it is closed.
        name: makes the identifiers reproducible and different between figures.
    """
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    plt.close(figure)
    for prefix, uri in (("", SVG), ("xlink", "http://www.w3.org/1999/xlink")):
        ElementTree.register_namespace(prefix, uri)
    root = ElementTree.fromstring(buffer.getvalue())
    for size in ("width", "height"):
        root.attrib.pop(size)
    for parent in root.iter():
        for child in parent.findall(f"{{{SVG}}}style"):
            parent.remove(child)  # it would apply to the whole page
        if parent.tag == f"{{{SVG}}}g":
            parent.attrib.pop("id", None)  # the same in every figure
        if INK in parent.get("style", ""):
            parent.set("style", parent.attrib["style"].replace(INK, "currentColor"))
    return ElementTree.tostring(root, encoding="unicode")
