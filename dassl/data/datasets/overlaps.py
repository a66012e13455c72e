"""Images that a list holds twice, or that two lists share."""

import itertools
import os
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

Overlaps = dict[str, int]


def find_overlaps(parts: Mapping[str, Sequence[Hashable]]) -> Overlaps:
    """Count what stands twice.

    Args:
        parts: name of a list -> what tells its images apart, such as their paths.

    Returns:
        "twice_in_<part>" -> entries beyond the first of each image, and "<part>_and_<other>" ->
        images in both; what is 0 is left out.
    """
    sets = {part: set(keys) for part, keys in parts.items()}
    found = {f"twice_in_{part}": len(parts[part]) - len(sets[part]) for part in parts}
    for one, other in itertools.combinations(parts, 2):
        found[f"{one}_and_{other}"] = len(sets[one] & sets[other])
    return {name: count for name, count in found.items() if count}


def path_keys(parts: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Paths as one spelling for each file, as far as a look at few files tells.

    Folders are followed to where their links lead, and paths that differ in case alone are the same
    where the file system says so.
    """
    folders: dict[str, str] = {}
    keys: dict[str, list[str]] = {}
    for part, paths in parts.items():
        keys[part] = []
        for path in paths:
            folder, _, name = path.rpartition(os.sep)
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            keys[part].append(f"{folders[folder]}{os.sep}{name}")
    spelled = _spellings(set(itertools.chain.from_iterable(keys.values())))
    return {part: [spelled.get(key, key) for key in own] for part, own in keys.items()}


def _spellings(paths: set[str]) -> dict[str, str]:
    """Path -> the first spelling of the same file, for those with several that differ in case."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    if len({path.lower() for path in paths}) == len(paths):
        return {}
    for path in sorted(paths):
        groups[path.lower()].append(path)
    return {
        path: group[0]
        for group in groups.values()
        for path in group[1:]
        if os.path.exists(path) and os.path.samefile(path, group[0])  # noqa: PTH110, PTH121
    }


def describe(overlaps: Overlaps) -> str:
    """The counts in words, such as "2 in train and test, 1 twice in test"."""
    return ", ".join(f"{count} {_words(name)}" for name, count in overlaps.items())


def _words(name: str) -> str:
    return name.replace("_", " ") if name.startswith("twice") else f"in {name.replace('_', ' ')}"
