"""Concepts (one per emoji) with names and keywords, and the matching of icons to concepts."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools.mini.styles import Style, source_of

GROUPS = {
    0: "smileys", 1: "people", 3: "animals", 4: "food", 5: "travel", 6: "activities",
    7: "objects", 8: "symbols",
}  # fmt: skip
_GENDERED = re.compile(r"(man|woman|family|kiss|couple)\b")
_VARIANT = re.compile(r"(-(fill|filled|bold|duotone|outline|solid|16|20|24|28|32|48|\d+))+$")
_SHORTCODES = ("emojibase", "cldr", "github", "iamcal", "joypixels")


@dataclass(frozen=True)
class Concept:
    """One emoji: code points, English name, group, aliases and keywords."""

    code: str
    name: str
    group: str
    aliases: tuple[str, ...]
    keywords: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary."""
        return asdict(self)


def normal_code(code: str) -> str:
    """Normalise code points: lower case, without variation selectors and leading 0."""
    return code.lower().replace("-fe0f", "").lstrip("0")


def squeeze(name: str) -> str:
    """Remove punctuation from a name, since hyphenation differs between sets."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _is_concept(entry: dict[str, Any]) -> bool:
    """Return False for flags, keycaps, gender variants, families and mirrored twins."""
    label = entry["label"]
    if entry.get("group") not in GROUPS or "gender" in entry or "keycap" in label:
        return False
    if "facing right" in label:
        return False
    joined = "200D" in entry["hexcode"] and GROUPS[entry["group"]] == "people"
    return not (joined and _GENDERED.match(label))


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def load_concepts() -> list[Concept]:
    """Return all concepts in Unicode's order."""
    base = source_of("emojibase-data") / "en"
    shortcodes: dict[str, list[str]] = defaultdict(list)
    for name in _SHORTCODES:
        for code, names in _read(base / "shortcodes" / f"{name}.json").items():
            shortcodes[code] += [names] if isinstance(names, str) else names
    more = {
        emoji.replace("\ufe0f", ""): words
        for emoji, words in _read(source_of("emojilib") / "dist" / "emoji-en-US.json").items()
    }
    entries = [e for e in _read(base / "data.json") if _is_concept(e)]
    return [
        _concept(e, shortcodes[e["hexcode"]], more.get(e["emoji"].replace("\ufe0f", ""), []))
        for e in sorted(entries, key=lambda e: e["order"])
    ]


def _concept(entry: dict[str, Any], shortcodes: list[str], more: list[str]) -> Concept:
    label = entry["label"].lower()
    aliases = dict.fromkeys(s.replace("_", " ").lower() for s in shortcodes)
    aliases.pop(label, None)
    words = dict.fromkeys(w.replace("_", " ").lower() for w in [*entry.get("tags", []), *more])
    words.pop(label, None)
    return Concept(
        code=normal_code(entry["hexcode"]),
        name=label,
        group=GROUPS[entry["group"]],
        aliases=tuple(a for a in aliases if len(a) > 2),
        keywords=tuple(w for w in words if re.search("[a-z]{2}", w)),
    )


class Matcher:
    """Lookup of the concept of a package's file or icon by code points or name."""

    def __init__(self, concepts: list[Concept]) -> None:
        self.codes = {c.code: i for i, c in enumerate(concepts)}
        self.labels = {squeeze(c.name): i for i, c in enumerate(concepts)}
        owners: dict[str, set[int]] = defaultdict(set)
        for i, concept in enumerate(concepts):
            for alias in concept.aliases:
                owners[squeeze(alias)].add(i)
        # aliases that two emoji share ('mouse') are ambiguous
        self.aliases = {a: next(iter(o)) for a, o in owners.items() if len(o) == 1}

    def learn(self, style: Style) -> None:
        """Add the icon names of a set that also has code points as aliases."""
        for code, name in _read(style.source / "chars.json").items():
            concept = self.by_code(code)
            if concept is not None:
                self.aliases.setdefault(squeeze(name), concept)

    def by_code(self, code: str) -> int | None:
        """Return the concept with these code points."""
        return self.codes.get(normal_code(code))

    def by_name(self, name: str) -> int | None:
        """Return the concept of this name, ignoring suffixes such as '-fill'."""
        for key in (squeeze(name), squeeze(_VARIANT.sub("", name))):
            found = self.labels.get(key, self.aliases.get(key))
            if found is not None:
                return found
        return None
