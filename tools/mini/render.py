"""Render every drawing of every style to an RGBA image, cropped and centred.

Run from the repository's root after `fetch`: `python -m tools.mini.render`.  Writes
`build/mini/drawings.npy`, uint8 (N, 72, 72, 4), and `build/mini/manifest.json`.
"""

from __future__ import annotations

import io
import json
import multiprocessing
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import resvg_py
from PIL import Image

from tools.mini.concepts import Matcher, load_concepts
from tools.mini.styles import SIZE, STYLES, WORK, Style

MARGIN = 2  # transparent pixels around a drawing, so that rotated edges stay smooth


class Source(NamedTuple):
    """A drawing before rendering: SVG text or an encoded image."""

    style: str
    concept: int
    icon: str
    data: str | bytes


def _svg(icons: dict[str, Any], name: str) -> str | None:
    """Return the SVG text of an iconify icon; None for aliases that mirror another icon."""
    alias = icons.get("aliases", {}).get(name)
    if alias is not None:
        return _svg(icons, alias["parent"]) if set(alias) == {"parent"} else None
    icon = icons["icons"][name]
    width, height = (icon.get(k, icons.get(k, 16)) for k in ("width", "height"))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    size = f'width="{width}" height="{height}" viewBox="{box}"'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f"{size}>{icon['body']}</svg>"
    )


def _iconify(style: Style, matcher: Matcher) -> Iterator[Source]:
    icons = json.loads((style.source / "icons.json").read_text(encoding="utf-8"))
    codes: dict[str, str] = json.loads((style.source / "chars.json").read_text(encoding="utf-8"))
    by_code = {codes[c]: i for c in codes if (i := matcher.by_code(c)) is not None}
    drawn: dict[int, list[str]] = defaultdict(list)
    for name in [*by_code, *icons["icons"], *icons.get("aliases", {})]:
        concept = by_code.get(name, matcher.by_name(name))
        svg = None if concept is None else _svg(icons, name)
        if concept is None or svg is None or svg in drawn[concept]:
            continue
        if len(drawn[concept]) < style.variants:
            drawn[concept].append(svg)
            yield Source(style.name, concept, name, svg)


def _files(style: Style, matcher: Matcher) -> Iterator[Source]:
    colour = "black" if style.name.endswith("black") else "color"
    folder, pattern = {"openmoji": (f"{colour}/svg", "*.svg"), "webp": ("assets", "*.webp")}[
        style.kind
    ]
    for path in sorted((style.source / folder).glob(pattern)):
        concept = matcher.by_code(path.stem)
        if concept is not None:
            yield Source(style.name, concept, path.stem, path.read_bytes())


def crop_and_centre(image: Image.Image) -> np.ndarray | None:
    """Fit the visible part of an image to (SIZE, SIZE, 4); None if nothing is visible."""
    box = image.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox()
    if box is None:
        return None
    image = image.crop(box)
    factor = (SIZE - 2 * MARGIN) / max(image.size)
    width, height = (max(1, round(edge * factor)) for edge in image.size)
    canvas = Image.new("RGBA", (SIZE, SIZE))
    small = image.resize((width, height), Image.Resampling.LANCZOS)
    canvas.paste(small, ((SIZE - width) // 2, (SIZE - height) // 2))
    return np.asarray(canvas)


def render(source: Source) -> np.ndarray | None:
    """Render one source to RGBA (SIZE, SIZE, 4); None if nothing is visible."""
    data = source.data
    if not isinstance(data, bytes) or data.lstrip().startswith(b"<"):
        text = data if isinstance(data, str) else data.decode("utf-8")
        data = resvg_py.svg_to_bytes(svg_string=text, width=2 * SIZE, skip_system_fonts=True)
    with Image.open(io.BytesIO(bytes(data))) as image:
        return crop_and_centre(image.convert("RGBA"))


def collect() -> tuple[list[Any], list[Source]]:
    """Return the concepts and the sources of all styles in the table's order."""
    concepts = load_concepts()
    matcher = Matcher(concepts)
    for style in STYLES:
        if style.kind == "iconify" and style.variants == 1:
            matcher.learn(style)
    sources: list[Source] = []
    for style in STYLES:
        find = _iconify if style.kind == "iconify" else _files
        sources += find(style, matcher)
    return concepts, sources


def write_atomically(path: Path, payload: bytes) -> None:
    """Write a file atomically."""
    scratch = path.with_suffix(path.suffix + ".tmp")
    scratch.write_bytes(payload)
    scratch.replace(path)


def main() -> None:
    """Render everything and write the array and its manifest."""
    concepts, sources = collect()
    with multiprocessing.get_context("spawn").Pool() as pool:
        pictures = pool.map(render, sources, chunksize=64)
    visible = [(s, p) for s, p in zip(sources, pictures, strict=True) if p is not None]
    buffer = io.BytesIO()
    np.save(buffer, np.stack([p for _, p in visible]))
    write_atomically(WORK / "drawings.npy", buffer.getvalue())
    manifest = {
        "size": SIZE,
        "concepts": [c.to_json() for c in concepts],
        "drawings": [{"style": s.style, "concept": s.concept, "icon": s.icon} for s, _ in visible],
    }
    write_atomically(WORK / "manifest.json", json.dumps(manifest, indent=1).encode())
    for style, count in Counter(s.style for s, _ in visible).items():
        print(f"{style:18s} {count}")
    print(f"{len(concepts)} concepts, {len(visible)} drawings")


if __name__ == "__main__":
    main()
