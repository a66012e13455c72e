"""Pack the task styles' drawings for the repository, one archive per family of licences.

Run from the repository's root after `fetch` and `render`: `python -m tools.mini.bundle`.  Writes
`datasets/emoji/`: two archives of WebP images, `concepts.json` and `LICENSES.md`. The output is
deterministic.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tools.mini.render import write_atomically
from tools.mini.styles import STYLES, WORK, Style

TARGET = Path("datasets/emoji")
COLOURS = 256  # a palette halves the archives; drawings rarely have more colours
LICENCE_TEXTS = {
    "Apache-2.0": ("Apache License 2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
    "CC-BY-SA-4.0": (
        "Creative Commons Attribution-ShareAlike 4.0 International",
        "https://creativecommons.org/licenses/by-sa/4.0/legalcode",
    ),
    "CC-BY-4.0": (
        "Creative Commons Attribution 4.0 International",
        "https://creativecommons.org/licenses/by/4.0/legalcode",
    ),
    "CC-BY-3.0": (
        "Creative Commons Attribution 3.0 Unported",
        "https://creativecommons.org/licenses/by/3.0/legalcode",
    ),
    "MIT": ("MIT License", "https://opensource.org/license/mit"),
    "ISC": ("ISC License", "https://opensource.org/license/isc-license-txt"),
}
HEADER = """# Licences of the drawings and of the small CLIP

The bundled benchmark shows emoji by several design teams. Each archive holds drawings under one
family of licences; they were rendered, cropped and reduced to a palette by `tools/mini/`, and a
task's scenes rotate, scale and recolour them. Nobody below endorses this project.
"""
TRAINED = (
    "## Trained into `clip/mini.safetensors` and `clip/mini_vit.safetensors`, "
    "not shipped as pictures"
)


def archive_of(style: Style) -> str:
    """Return the name of the archive with a style's drawings."""
    return "drawings_share_alike.zip" if style.share_alike else "drawings.zip"


def slug(name: str) -> str:
    """Convert a concept's name to a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("\u2019", "")).strip("-")


def concept_ids(names: list[str]) -> list[str]:
    """Return distinct slugs of all concepts."""
    ids = [slug(name) for name in names]
    if len(set(ids)) < len(ids) or not all(ids):
        raise ValueError("two concepts share a slug")
    return ids


def encode(drawing: np.ndarray) -> bytes:
    """Encode an RGBA drawing (72, 72, 4) as lossless WebP with its own palette."""
    picture = Image.fromarray(drawing).quantize(COLOURS, method=Image.Quantize.FASTOCTREE)
    buffer = io.BytesIO()
    picture.convert("RGBA").save(buffer, "WEBP", lossless=True, quality=100, method=6)
    return buffer.getvalue()


def zip_bytes(members: dict[str, bytes]) -> bytes:
    """Return a zip archive that depends only on its members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            archive.writestr(info, members[name])
    return buffer.getvalue()


def _credits(styles: list[Style]) -> list[str]:
    rows = ["| style | licence | credit | npm package |", "|---|---|---|---|"]
    return rows + [
        f"| {s.name} | {s.licence} | {s.credit} | {s.package} {s.version} |" for s in styles
    ]


def licence_page() -> str:
    """Return the credits of every style, shipped or trained on, with links to the licences."""
    shipped = [s for s in STYLES if s.role == "task"]
    lines = [HEADER]
    for name in sorted({archive_of(s) for s in shipped}):
        lines += [f"## {name}", "", *_credits([s for s in shipped if archive_of(s) == name]), ""]
        if "share_alike" in name:
            lines += ["Evaluation and prompt tuning only: these never enter the weights.", ""]
    lines += [TRAINED, ""]
    lines += [*_credits([s for s in STYLES if s.role == "train"]), ""]
    lines += ["Names, groups and keywords: emojibase-data and emojilib, MIT.", ""]
    lines += ["## Texts of the licences", ""]
    used = sorted({s.licence for s in STYLES})
    lines += [f"- {key}: {LICENCE_TEXTS[key][0]}, {LICENCE_TEXTS[key][1]}" for key in used]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the archives and their tables."""
    manifest: dict[str, Any] = json.loads((WORK / "manifest.json").read_text(encoding="utf-8"))
    drawings = np.load(WORK / "drawings.npy", mmap_mode="r")
    ids = concept_ids([c["name"] for c in manifest["concepts"]])
    shipped = {s.name: s for s in STYLES if s.role == "task"}
    members: dict[str, dict[str, bytes]] = {archive_of(s): {} for s in shipped.values()}
    drawn: dict[int, list[str]] = {}
    for drawing, entry in zip(drawings, manifest["drawings"], strict=True):
        style = shipped.get(entry["style"])
        if style is not None:
            name = f"{style.name}/{ids[entry['concept']]}.webp"
            members[archive_of(style)][name] = encode(np.asarray(drawing))
            drawn.setdefault(entry["concept"], []).append(style.name)
    concepts = [
        {"id": ids[k], "name": c["name"], "group": c["group"], "styles": drawn[k]}
        for k, c in enumerate(manifest["concepts"])
        if k in drawn
    ]
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, files in members.items():
        write_atomically(TARGET / name, zip_bytes(files))
    rows = ",\n".join(json.dumps(c, ensure_ascii=False) for c in concepts)
    write_atomically(TARGET / "concepts.json", f"[\n{rows}\n]\n".encode())
    write_atomically(TARGET / "LICENSES.md", licence_page().encode())
    for path in sorted(TARGET.iterdir()):
        print(f"{path} {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
