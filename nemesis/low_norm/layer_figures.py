"""At which layers does the norm of a prompt mean anything? The change of accuracy by layer."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from nemesis.report.figures import COLOURS, plt

from .corruption import RESCALE, Corruption
from .drawing import dress, file_stem, save
from .frequency import Key, SeedMean, Setting

Layers = dict[str, SeedMean]  # by part, such as vision.2


def layers_of(cells: Mapping[Key, SeedMean]) -> dict[Key, Layers]:
    """Group the cells of single layers by method, dataset and shots; others are left out."""
    found: defaultdict[Key, Layers] = defaultdict(dict)
    for (method, dataset, shots), cell in cells.items():
        part = cell.studies[0].run.get("part", "")
        if "." in part:
            found[method.removesuffix(f" ({part})"), dataset, shots][part] = cell
    return dict(found)


def mean_change(cell: SeedMean, setting: Setting) -> float | None:
    """Return the mean over positions and seeds of |change of the accuracy|, in points."""
    changes = [
        abs(study.entries[corruption]["accuracy_change"])
        for study in cell.studies
        for position in range(cell.length)
        if (corruption := Corruption(*setting, position)) in study.entries
    ]
    return fmean(changes) if changes else None


def draw_layers(
    cells: Mapping[Key, SeedMean], settings: Sequence[Setting], folder: Path
) -> list[Path]:
    """Draw for each method, dataset and shots how much rescaled vectors change the accuracy."""
    rescaled = [setting for setting in settings if setting[0] == RESCALE]
    found = layers_of(cells) if rescaled else {}
    return [_draw(key, layers, rescaled, folder) for key, layers in found.items()]


def _draw(key: Key, layers: Layers, settings: Sequence[Setting], folder: Path) -> Path:
    method, dataset, shots = key
    parts = sorted(layers)
    figure, axis = plt.subplots(figsize=(1.1 * len(parts) + 2.5, 3.4), layout="constrained")
    width, rows = 0.8 / len(settings), []
    for index, setting in enumerate(settings):
        heights = [mean_change(layers[part], setting) for part in parts]
        rows += [[part, setting[1], height] for part, height in zip(parts, heights, strict=True)]
        _bars(axis, index, width, heights, f"times {setting[1]:g}")
    axis.set_xticks([place + 0.4 - width / 2 for place in range(len(parts))], map(_name, parts))
    count = f"{shots} shot{'' if shots == 1 else 's'}" if shots > 0 else "all images"
    dress(
        axis,
        title=f"{method}, {dataset}, {count}: one vector rescaled",
        ylabel="|change of accuracy|, points",
    )
    axis.legend(frameon=False, fontsize="small")
    stem = file_stem("layers", method, dataset, f"{shots}shots")
    return save(figure, folder / f"{stem}.png", ["layer", "factor", "mean change"], rows)


def _bars(axis: Any, index: int, width: float, heights: Iterable[float | None], label: str) -> None:
    known = [(place, height) for place, height in enumerate(heights) if height is not None]
    places = [place + index * width for place, _ in known]
    colour = COLOURS[index % len(COLOURS)]
    axis.bar(places, [height for _, height in known], width, color=colour, label=label)


def _name(part: str) -> str:
    tower, _, layer = part.partition(".")
    return f"{tower}\nlayer {int(layer) + 1}"
