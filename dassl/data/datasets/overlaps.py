"""Duplicate images within a list and between two lists."""

import itertools
import os
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

Overlaps = dict[str, int]
MOST_PATHS = 200_000


def find_overlaps(parts: Mapping[str, Sequence[Hashable]]) -> Overlaps:
    """Count duplicate images; `parts` maps lists to keys of their images, such as paths.

    Returns:
        "twice_in_<part>" -> entries beyond the first of each image, and "<part>_and_<other>" ->
        images in both; counts of 0 are omitted.
    """
    sets = {part: set(keys) for part, keys in parts.items()}
    found = {f"twice_in_{part}": len(parts[part]) - len(sets[part]) for part in parts}
    for one, other in itertools.combinations(parts, 2):
        found[f"{one}_and_{other}"] = len(sets[one] & sets[other])
    return {name: count for name, count in found.items() if count}


def path_keys(parts: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    """Return the paths with one spelling for each file, without opening every file.

    Links to folders are resolved, and paths that differ only in case are merged if they are the
    same file. More than `MOST_PATHS` paths, which would take seconds, are returned unchanged.
    """
    if sum(map(len, parts.values())) > MOST_PATHS:
        return parts
    paths = set[str]().union(*parts.values())
    folders = {path.rpartition(os.sep)[0] for path in paths}
    real = {folder: os.path.realpath(folder) for folder in folders}
    if any(folder != target for folder, target in real.items()):
        resolved = {}
        for part, own in parts.items():
            cut = (path.rpartition(os.sep) for path in own)
            resolved[part] = [f"{real[folder]}{os.sep}{name}" for folder, _, name in cut]
        parts = resolved
    spelled = _spellings(set[str]().union(*parts.values()))
    if not spelled:
        return parts
    return {part: [spelled.get(path, path) for path in own] for part, own in parts.items()}


def _spellings(paths: set[str]) -> dict[str, str]:
    """Return path -> first spelling of the same file, for spellings that differ in case."""
    if len({path.lower() for path in paths}) == len(paths):
        return {}
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(paths):
        groups[path.lower()].append(path)
    existing = ([path for path in group if Path(path).exists()] for group in groups.values())
    return {
        path: group[0] for group in existing for path in group[1:] if Path(path).samefile(group[0])
    }


def describe(overlaps: Overlaps) -> str:
    """Return the counts in words, such as "2 in train and test, 1 twice in test"."""
    return ", ".join(f"{count} {_words(name)}" for name, count in overlaps.items())


def _words(name: str) -> str:
    return name.replace("_", " ") if name.startswith("twice") else f"in {name.replace('_', ' ')}"
