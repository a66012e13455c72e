"""Hints for unknown keys: the key that was probably meant, if there is a clear candidate."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from yacs.config import CfgNode as YacsNode

from ..utils.registry import skipped_note

# Minimum similarity of two spellings of a name; "KGCOOP" and "COOP" (0.8) are two methods.
MIN_GROUP_SIMILARITY = 0.85
MIN_NAME_SIMILARITY = 0.75
MOST_GUESSES = 3
LONGEST_KEY = 200  # characters that are compared

_aliases: dict[str, str] = {}


def declare_aliases(aliases: Mapping[str, str]) -> None:
    """Declare other code's names of keys, for the hints of unknown keys.

    Args:
        aliases: dotted path in other code, in any case -> dotted path here.
    """
    _aliases.update({_normalised(path): known for path, known in aliases.items()})


def hint(path: str, cfg: YacsNode) -> str:
    """Return the end of the error message about an unknown key.

    Args:
        path: the dotted key.
        cfg: the configuration.

    Returns:
        '; did you mean "..."?' for a clear candidate, else the keys of the group.
    """
    path = path[:LONGEST_KEY]
    known = [key for key, _ in leaves(cfg)]
    guesses = _renamed(path, known) or _misspelt(path, known)
    if guesses and len(guesses) <= MOST_GUESSES:
        return "; did you mean " + " or ".join(f'"{guess}"' for guess in guesses) + "?"
    return _about_group(path, cfg)


def _normalised(path: str) -> str:
    """Return the same text for TRAINER.COOP.N_CTX and trainer.coop.nctx."""
    return path.upper().replace("_", "").replace("-", "")


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of every setting."""
    for name, value in node.items():
        if isinstance(value, YacsNode):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _renamed(path: str, known: Sequence[str]) -> list[str]:
    """Return the keys with this alias, with another case, or with additional outer groups."""
    name = _normalised(path)
    for spelling in (name, f"TRAINER.{name}"):
        if _aliases.get(spelling) in known:
            return [_aliases[spelling]]
    same = [key for key in known if _normalised(key) == name]
    return same or [key for key in known if _normalised(key).endswith(f".{name}")]


def _misspelt(path: str, known: Sequence[str]) -> list[str]:
    """Return the key of the same or a similarly spelt group with the most similar name.

    If there is none, return the keys of the same name in other groups, except for trainers' keys.
    """
    group, _, name = _normalised(path).rpartition(".")

    def similarity(key: str) -> float:
        known_group, _, known_name = _normalised(key).rpartition(".")
        ratio = _ratio(name, known_name)
        # "MEAN" is part of two names, and a misspelling of neither.
        similar = ratio >= MIN_NAME_SIMILARITY and name[:1] == known_name[:1]
        return ratio if similar and _same_group(group, known_group) else 0.0

    best = max(known, key=similarity)
    if similarity(best):
        return [best]
    if group.startswith("TRAINER."):
        return []
    return [key for key in known if _normalised(key).rpartition(".")[2] == name]


def _same_group(group: str, known: str) -> bool:
    names, known_names = group.split("."), known.split(".")
    return len(names) == len(known_names) and all(
        _ratio(*pair) >= MIN_GROUP_SIMILARITY for pair in zip(names, known_names, strict=True)
    )


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _about_group(path: str, cfg: YacsNode) -> str:
    """Return the keys of an unknown key's group, or that no trainer declares the group."""
    group, node = "", cfg
    for name in path.split(".")[:-1]:
        if not isinstance(node.get(name), YacsNode):
            break
        group, node = f"{group}{name}.", node[name]
    if group == "TRAINER." and path.count(".") > 1:
        missing = ".".join(path.split(".")[:2])
        how = "as its file does with dassl.config.declare_config"
        return f"; no trainer declares {missing}, {how}{skipped_note()}"
    return f"; accepted: {', '.join(group + name for name in node)}"
